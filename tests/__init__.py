"""Tests; a package so that the helper modules beside this file can be imported."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

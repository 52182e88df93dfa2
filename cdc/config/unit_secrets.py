"""Reads the secrets of a fleet's units: files named like environment variables, in a folder for each unit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cdc.config import files
from cdc.errors import ConfigError

PREFIX: Final = "CDC_"


def read(folder: Path | None, unit: str) -> Mapping[str, str]:
    """Return the texts of a unit's secrets by the names of variables; `folder` is that of all units.

    Raises ConfigError with one line per file that cannot be read.
    """
    if folder is None:
        return {}
    found, problems = {}, []
    try:
        paths = sorted((folder / unit).iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"[fleet] secrets: folder {folder / unit}: {error.strerror}") from None
    for path in paths:
        if path.name.startswith(PREFIX):
            try:
                found[path.name] = files.read(str(path))
            except ValueError as error:
                problems.append(f"[fleet] secrets: {error}")
    if problems:
        raise ConfigError(*problems)
    return found

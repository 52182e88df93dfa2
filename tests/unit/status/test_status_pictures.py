"""The pictures of the documentation are small."""

from pathlib import Path

import pytest

from tests import ROOT

IMAGES = ROOT / "docs" / "images"
LARGEST = 150_000


@pytest.mark.parametrize("picture", sorted(IMAGES.glob("*.png")), ids=lambda picture: picture.name)
def test_a_picture_is_quick_to_load(picture: Path) -> None:
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < LARGEST


@pytest.mark.parametrize("name", ["demo", "status-watch", "check", "status-page-light", "status-page-dark"])
def test_every_picture_that_the_script_makes_is_there(name: str) -> None:
    assert (IMAGES / f"{name}.png").is_file()

"""The status page as a picture, light and dark."""

import contextlib
from pathlib import Path
from typing import Final

from PIL import Image

from tests.browser import Browser, programs
from tests.pipeline import eventually

WIDTH: Final = 1100
_SCALE: Final = 1.5
_COLOURS: Final = 256  # no photograph: a quarter of the size


def take(url: str, folder: Path) -> None:
    """Save `status-page-light.png` and `status-page-dark.png` of the page at `url` in `folder`."""
    found = programs()
    assert not isinstance(found, str), found
    with contextlib.closing(Browser(*found)) as browser:
        for name in ("light", "dark"):
            browser.open(url, width=WIDTH, dark=name == "dark", still=True)
            eventually(lambda: browser.text("state") != "\N{EN DASH}", "the page is filled")
            # As high as the document, once it has its numbers.
            height = browser.run("return Math.ceil(document.documentElement.getBoundingClientRect().height)")
            browser.resize(WIDTH, height, _SCALE)
            file = folder / f"status-page-{name}.png"
            browser.picture(file)
            Image.open(file).convert("RGB").quantize(_COLOURS).save(file, optimize=True)

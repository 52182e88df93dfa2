"""A terminal's screen as a picture: its characters as HTML, and that by headless Chromium as PNG."""

import html
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from PIL import Image
from pyte.screens import Char

_PIXELS: Final = 15  # height of a character's font
_WIDE: Final = 0.60205  # of a character of DejaVu Sans Mono, in its font's height
_HIGH: Final = 1.1640625  # its ascent and descent: with it, frames are closed
_PADDING: Final = 18
_BAR: Final = 34
_SCALE: Final = 1.4
_COLOURS: Final = 48  # enough for text with soft edges, and a third of the size

_INK: Final = "#d5dbe3"
_PAPER: Final = "#11161d"
_PALETTE: Final = {
    "black": "#11161d",
    "red": "#f47067",
    "green": "#57ab5a",
    "brown": "#d6a23e",  # what pyte calls yellow
    "blue": "#539bf5",
    "magenta": "#b083f0",
    "cyan": "#3fb8c6",
    "white": "#d5dbe3",
    "brightblack": "#768390",
}
_PAGE: Final = """<!doctype html><meta charset="utf-8"><style>
html, body {{ margin: 0; background: {paper}; }}
header {{ height: {bar}px; background: #1c232c; display: flex; align-items: center; gap: 8px; padding: 0 14px;
  font: 13px "DejaVu Sans", sans-serif; color: #9aa5b1; }}
i {{ width: 12px; height: 12px; border-radius: 6px; }}
pre {{ margin: 0; padding: {padding}px; color: {ink}; font: {pixels}px/{high} "DejaVu Sans Mono", monospace; }}
</style><header>
<i style="background: #f47067"></i><i style="background: #d6a23e"></i><i style="background: #57ab5a"></i>
<span style="flex: 1; text-align: center; padding-right: 52px">{title}</span></header><pre>{lines}</pre>"""


def take(cells: Sequence[Sequence[Char]], title: str, file: Path) -> None:
    """Write a picture of a screen, without the empty lines at its end, below a title."""
    while cells and all(cell.data == " " for cell in cells[-1]):
        cells = cells[:-1]
    width = round(len(cells[0]) * _PIXELS * _WIDE) + 2 * _PADDING
    height = round(len(cells) * _PIXELS * _HIGH) + 2 * _PADDING + _BAR
    page = _PAGE.format(
        title=html.escape(title),
        lines="\n".join(map(_line, cells)),
        ink=_INK,
        paper=_PAPER,
        bar=_BAR,
        padding=_PADDING,
        pixels=_PIXELS,
        high=_HIGH,
    )
    _shoot(page, width, height, file)


def _line(cells: Iterable[Char]) -> str:
    return "".join(
        _span("".join(cell.data for cell in group), *style)
        for style, group in groupby(cells, lambda cell: (cell.fg, cell.bold))
    )


def _span(text: str, colour: str, bold: bool) -> str:
    ink = _PALETTE.get(colour, _INK if colour == "default" else f"#{colour}")
    weight = "; font-weight: bold" if bold else ""
    return f'<span style="color: {ink}{weight}">{html.escape(text)}</span>'


def _shoot(page: str, width: int, height: int, file: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("no chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        source, shot = Path(folder) / "page.html", Path(folder) / "page.png"
        source.write_text(page)
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--force-device-scale-factor={_SCALE}"]
        options += [f"--window-size={width},{height}", f"--screenshot={shot}", f"--user-data-dir={folder}/profile"]
        subprocess.run([chromium, *options, source.as_uri()], check=True, capture_output=True, timeout=120)
        compress(shot, file)


def compress(shot: Path, file: Path) -> None:
    """Write a picture with fewer colours, which nobody sees."""
    with Image.open(shot) as picture:
        picture.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            file, optimize=True
        )

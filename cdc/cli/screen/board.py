"""Renders the live screen: as much as the terminal has room for, the most important first."""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cdc.cli.screen import figures, panel
from cdc.cli.screen.figures import Shown
from cdc.cli.screen.panel import DIM
from cdc.logs.format import plain
from cdc.quantities import milliseconds, rate, size, span
from cdc.status.document import StatusDocument

_WIDE: Final = 76  # two charts side by side
_WIDER: Final = 132  # three, and the numbers in two columns
_HIGHEST: Final = 10  # lines of a chart
_FRAME: Final = 2  # lines of a panel's border
_BORDER: Final = 4  # characters of a panel's border and padding
_TOPIC_HEAD: Final = 2
_FEW_TOPICS: Final = 3
_MANY_TOPICS: Final = 8
_LEFT: Final = frozenset({"lag", "retained", "rate", "in flight", "latency"})


class _Series(NamedTuple):
    """Data of one chart; `newest` is the current value."""

    name: str
    colour: str
    values: Sequence[float | None]
    newest: float | None
    shown: Shown


def board(document: StatusDocument, console: Console, interval: float) -> RenderableType:
    """Render a screen of the terminal's size."""
    width, marks = console.width, panel.glyphs(console)
    top: list[RenderableType] = [_title(document, width), *panel.notes(document), panel.headline(document)]
    if document.hint:
        top.append(Text(plain(document.hint), style="bold"))
    middle, end = _numbers(document, width, marks), _foot(document, interval, width)
    left = console.height - _lines(console, *top, *middle, end)
    charts = _charts(_series(document), _chart_lines(document, width, left), width, marks)
    left -= _lines(console, *charts)
    topics = _topics(document, width, left)
    left -= _lines(console, *topics)
    return Group(*top, *charts, *middle, *topics, *([Text("\n" * (left - 1))] if left > 0 else []), end)


def _lines(console: Console, *parts: RenderableType) -> int:
    return sum(len(console.render_lines(part, pad=False)) for part in parts)


def _title(document: StatusDocument, width: int) -> Text:
    """Render the name at the left and the time at the right."""
    kind = "relay" if document.polling else "slot"
    name, slot, clock = "cdc-publisher", f"  {kind} {plain(document.slot.name)}", f"{plain(document.time)[11:19]} UTC"
    gap = " " * max(1, width - len(name) - len(slot) - len(clock))
    return Text.assemble((name, "bold"), (slot, DIM), gap, (clock, DIM), no_wrap=True, overflow="crop")


def _foot(document: StatusDocument, interval: float, width: int) -> Text:
    """Render the source of the numbers, and the key that ends the screen."""
    source = {"endpoint": f"from {plain(document.url or '')}", "database": "from the database"}.get(
        document.source or ""
    )
    shown, leave = f"{source or 'no answer'}, every {interval:g} s", "Ctrl-C leaves"
    gap = " " * max(2, width - len(shown) - len(leave))
    return Text(f"{shown}{gap}{leave}", style=DIM, no_wrap=True, overflow="crop")


def _framed(content: RenderableType, title: Text | None = None, width: int | None = None) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, border_style=DIM, width=width)


def _numbers(document: StatusDocument, width: int, marks: str) -> list[RenderableType]:
    """Render all facts, without sparklines, as there are charts."""
    inner = (width // 2 if width >= _WIDER else width) - _BORDER
    rows = list(panel.facts(document, inner, marks, sparks=False))
    if width < _WIDER or document.publisher is None:
        return [_framed(panel.grid(rows))]
    halves = Table.grid(expand=True, padding=(0, 2))
    for at_left in (True, False):
        halves.add_column(ratio=2 if at_left else 3)
    halves.add_row(*(panel.grid(row for row in rows if (row[0] in _LEFT) is at_left) for at_left in (True, False)))
    return [_framed(halves)]


def _abreast(panels: Iterable[Panel], width: int) -> Columns:
    return Columns(list(panels), padding=0, width=width)


def _series(document: StatusDocument) -> list[_Series]:
    """Return the series with known values."""
    history, newest = (
        document.history,
        list(takewhile(lambda value: value is not None, document.history.latency_ms[-1:])),
    )
    all_of_them = (
        _Series("events/s", "green", history.events_per_second, document.rate.events_per_second, rate),
        _Series("lag", "cyan", history.lag_bytes, document.lag.bytes, size),
        _Series("latency", "magenta", history.latency_ms, newest[0] if newest else None, milliseconds),
    )
    return [one for one in all_of_them if any(value is not None for value in one.values)]


def _columns(width: int) -> int:
    return 3 if width >= _WIDER else 2 if width >= _WIDE else 1


def _chart_lines(document: StatusDocument, width: int, left: int) -> int:
    """Return the height of charts that leaves room for the busiest topics; 0 is no room for charts."""
    rows = 1 if width >= _WIDE else 2
    for topics, enough in ((_MANY_TOPICS, 4), (_FEW_TOPICS, 1), (0, 1)):
        room = _FRAME + _TOPIC_HEAD + min(topics, len(document.topics)) if document.topics and topics else 0
        lines = (left - room) // rows - _FRAME
        if lines >= enough:
            return min(lines, _HIGHEST)
    return 0


def _charts(series: list[_Series], lines: int, width: int, marks: str) -> list[RenderableType]:
    """Render the first series, side by side or below each other."""
    series = series[: max(2, _columns(width))]
    if lines < 1 or not series:
        return []
    each = width // min(_columns(width), len(series))
    panels = [_chart(one, each, lines, marks) for one in series]
    return list(panels) if _columns(width) == 1 else [_abreast(panels, each)]


def _chart(one: _Series, width: int, lines: int, marks: str) -> Panel:
    inner = width - _BORDER
    seen = [value for value in one.values[-inner:] if value is not None]
    shown = span(min(len(one.values), inner))
    title = Text.assemble(
        (one.name, "bold"),
        f" {one.shown(one.newest)}" if one.newest is not None else "",
        (f" · up to {one.shown(max(seen, default=None))} in {shown}", DIM),
    )
    rows = figures.chart(one.values, inner, lines, glyphs=marks)
    return _framed(Text("\n".join(rows), style=one.colour, no_wrap=True), title, width)


def _topics(document: StatusDocument, width: int, left: int) -> list[RenderableType]:
    room = left - _FRAME - _TOPIC_HEAD
    if not document.topics or room < 1:
        return []
    table = panel.topics(document, room, width - _BORDER)
    table.expand = True
    return [_framed(table)]

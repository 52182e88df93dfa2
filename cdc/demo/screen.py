"""Show events during the demo: a live table on a terminal, or plain lines."""

import datetime
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cdc.demo.reader import Arrival
from cdc.demo.tally import Tally

PLAIN_WIDTH: Final = 120
PLAIN_SAMPLES: Final = 25
_SAMPLE_SECONDS: Final = 0.35
_REFRESH_SECONDS: Final = 0.1
_COUNT_SECONDS: Final = 2.0
_INTRODUCTION_LINES: Final = 6
_FRAME_LINES: Final = 4  # header, rule, counts and the cursor's line
_SUMMARY_LINES: Final = 17
_COLOURS: Final = {"OrderPlaced": "cyan", "PaymentCaptured": "green", "OrderCancelled": "yellow"}


class Screen(Protocol):
    """Shows events and counts; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, arrivals: Sequence[Arrival], tally: Tally, seen: int, status: str) -> None:
        """Show new events, of `seen` so far; `status` is empty in the last call."""
        ...


class Terminal:
    """Shows the newest events in a live table."""

    def __init__(self, console: Console) -> None:
        # The table fills the screen while writers run, and leaves room for the summary at the end.
        self._rows = min(max(console.height - _INTRODUCTION_LINES - _FRAME_LINES, 4), 40)
        self._last_rows = min(max(console.height - _SUMMARY_LINES - _FRAME_LINES, 4), 25)
        self._newest: deque[Arrival] = deque(maxlen=self._rows)
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._next = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, arrivals: Sequence[Arrival], tally: Tally, seen: int, status: str) -> None:
        self._newest.extend(arrivals)
        if time.monotonic() >= self._next or not status:
            self._next = time.monotonic() + _REFRESH_SECONDS
            self._live.update(
                Group(self._table(self._rows if status else self._last_rows), _counts(tally, seen, status)),
                refresh=True,
            )

    def _table(self, rows: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, show_edge=False, padding=(0, 0))
        table.add_column("topic", no_wrap=True)
        table.add_column("key", no_wrap=True, width=8)
        table.add_column("type", no_wrap=True, width=15)
        table.add_column("decoded record", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("latency", no_wrap=True, justify="right", width=8)
        for arrival in list(self._newest)[-rows:]:
            table.add_row(
                arrival.topic,
                arrival.key[:8],
                Text(arrival.type, style=_COLOURS.get(arrival.type, "")),
                Text(compact(arrival)),
                f"{arrival.delay_ms} ms",
            )
        for _ in range(rows - len(self._newest)):
            table.add_row()
        return table


class Plain:
    """Prints a sample of the events, and the counts every two seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0
        self._types: set[str] = set()
        self._sample_at = 0.0
        self._count_at = time.monotonic() + _COUNT_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, arrivals: Sequence[Arrival], tally: Tally, seen: int, status: str) -> None:
        now = time.monotonic()
        for arrival in arrivals:
            if self._shown < PLAIN_SAMPLES and (now >= self._sample_at or arrival.type not in self._types):
                self._types.add(arrival.type)
                self._shown += 1
                self._sample_at = now + _SAMPLE_SECONDS
                self._line(row(arrival, PLAIN_WIDTH))
        if now >= self._count_at or not status:
            self._count_at = now + _COUNT_SECONDS
            self._line(_counts(tally, seen, status).plain)

    def _line(self, text: str) -> None:
        self._console.out(text, highlight=False)


def screen(console: Console) -> Screen:
    """Return the screen that suits `console`."""
    return Terminal(console) if console.is_terminal else Plain(console)


def _counts(tally: Tally, seen: int, status: str) -> Text:
    text = f"{tally.rows:,} rows committed, {seen:,} events in Kafka, {len(tally.undone):,} rows rolled back"
    return Text(f"{text}; {status}" if status else text)


def row(arrival: Arrival, width: int) -> str:
    """Format an event as a line of at most `width` characters."""
    delay = f"{arrival.delay_ms} ms"
    text = f"{arrival.topic:<20} {arrival.key[:8]} {arrival.type:<15} {delay:>7}  {compact(arrival)}"
    return text if len(text) <= width else f"{text[: width - 3]}..."


def compact(arrival: Arrival) -> str:
    """Format a decoded record on one line, without the field that repeats the key."""
    fields = [(name, value) for name, value in arrival.record.items() if str(value) != arrival.key]
    # Ids last, because a narrow screen truncates the line.
    return _fields(dict(sorted(fields, key=lambda field: isinstance(field[1], uuid.UUID))))


def _fields(record: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in record.items() if value is not None)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{_fields(value)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, uuid.UUID):
        return str(value)[:8]
    return str(value)

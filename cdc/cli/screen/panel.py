"""Renders the status document as lines and tables.

Its texts are not trusted: they are not interpreted as markup, and control characters are escaped.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cdc.cli.screen import figures
from cdc.cli.screen.figures import EIGHTHS
from cdc.logs.format import plain
from cdc.quantities import count, milliseconds, plural, rate, size, span
from cdc.status.document import PollingStatus, StatusDocument
from cdc.telemetry.health import WORDS, State

COLOURS: Final = {
    State.IDLE: "green",
    State.STREAMING: "green",
    State.CATCHING_UP: "cyan",
    State.STANDBY: "cyan",
    State.RECOVERING: "yellow",
    State.STARTING: "yellow",
    State.STOPPING: "yellow",
    State.BLOCKED_BY_KAFKA: "yellow",
    State.BLOCKED_BY_REGISTRY: "yellow",
    State.BLOCKED_BY_POSTGRES: "yellow",
}
"""The other states need an operator: they are red."""
DIM: Final = "bright_black"
PIPE_WIDTH: Final = 200
"""Width for output into a pipe or a file."""

_TOPICS: Final = 12
_WIDE: Final = 70
_INDENT: Final = (0, 0, 0, 2)
_DOT: Final = " · "
_RARE: Final = ("poison", "dead_letters", "skipped_replays", "sent_again")


def glyphs(console: Console) -> str:
    """Return the characters for charts on this terminal."""
    return figures.ASCII if console.options.ascii_only else EIGHTHS


def show(document: StatusDocument, console: Console) -> RenderableType:
    """Render the whole document."""
    width, marks = console.width, glyphs(console)
    parts: list[RenderableType] = [*notes(document), headline(document), Text()]
    parts.append(Padding(grid(facts(document, width, marks)), _INDENT, expand=False))
    if document.topics:
        parts += [Text(), Padding(topics(document, _TOPICS, width), _INDENT, expand=False)]
    if document.hint:
        parts += [Text(), Text(plain(document.hint), style="bold")]
    return Group(*parts)


def notes(document: StatusDocument) -> list[Text]:
    """Render the notes, which come before the numbers."""
    return [Text(plain(note), style="yellow") for note in document.notes]


def colour(document: StatusDocument) -> str:
    """Return the colour of the state."""
    return "red" if document.state is None else COLOURS.get(document.state, "red")


def headline(document: StatusDocument) -> Text:
    """Render the state, its reason and its age."""
    state = "unknown" if document.state is None else WORDS[document.state]
    reason = plain(document.summary).removeprefix(state).removeprefix(":").strip()
    if not reason and document.rate.events_per_second is not None:
        reason = f"{rate(document.rate.events_per_second)} events/s, {span(document.lag.seconds)} behind"
    passed = figures.age(document.since, document.time)
    return Text.assemble(
        (f"● {state}", f"bold {colour(document)}"),
        f"  {reason}" if reason else "",
        (f"  for {span(passed)}" if passed is not None else "", DIM),
    )


def grid(rows: Iterable[tuple[str, Text]]) -> Table:
    """Lay out names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def facts(document: StatusDocument, width: int, marks: str, *, sparks: bool = True) -> Iterator[tuple[str, Text]]:
    """Render all facts but the topics, without unknown ones."""
    if document.lag.bytes is not None:
        yield "lag", lag(document)
    if sparks:
        yield from _sparks(document, max(10, min(60, width - 40)), marks)
    if document.slot.retained_bytes is not None:
        yield "retained", retained(document, max(8, min(30, width - 50)), marks)
    if document.rate.events_per_second is not None:
        yield "rate", rates(document)
        yield "in flight", in_flight(document)
    if document.latency.count:
        yield "latency", latency(document)
    yield ("relay" if document.polling else "slot"), slot(document)
    if document.polling:
        yield "rows", polling(document.polling)
    if document.memory:
        yield "Kafka", memory(document)
    if document.table:
        rows = (
            "unknown number of rows" if document.table.rows is None else f"about {plural(document.table.rows, 'row')}"
        )
        yield "table", Text(f"{plain(document.table.name)}{_DOT}{rows}")
    if document.publisher:
        yield "publisher", publisher(document)
        yield "totals", totals(document)
        yield "last error", last_error(document)


def _sparks(document: StatusDocument, width: int, marks: str) -> Iterator[tuple[str, Text]]:
    history = document.history
    if history.events_per_second:
        (line,) = figures.chart(history.events_per_second, min(width, len(history.events_per_second)), 1, glyphs=marks)
        yield "events/s", Text.assemble((line, "green"), (f"  {_peak(history.events_per_second, rate)}", DIM))
    if any(history.lag_bytes) and len(history.lag_bytes) > 1:
        (line,) = figures.chart(history.lag_bytes, min(width, len(history.lag_bytes)), 1, glyphs=marks)
        yield "lag, bytes", Text.assemble((line, "cyan"), (f"  {_peak(history.lag_bytes, size)}", DIM))


def _peak(values: Sequence[float | None], shown: figures.Shown) -> str:
    top = max((value for value in values if value is not None), default=None)
    return f"up to {shown(top)}"


def lag(document: StatusDocument) -> Text:
    """Render the lag in bytes, seconds and events, if known."""
    of, parts = document.lag, [size(document.lag.bytes)]
    if of.seconds is not None:
        parts.append(span(of.seconds))
    if of.events is not None:
        parts.append(plural(of.events, "event"))
    return Text(_DOT.join(parts), style="bold")


def retained(document: StatusDocument, width: int, marks: str) -> Text:
    """Render the WAL that PostgreSQL retains for the slot, against its limit."""
    kept, limit, safe = document.slot.retained_bytes or 0, document.slot.limit_bytes, document.slot.safe_bytes
    if limit is None:
        return Text.assemble(size(kept), (f"{_DOT}no limit (max_slot_wal_keep_size)", DIM))
    left = "" if safe is None else f"{_DOT}{size(safe)} left"
    return Text.assemble(
        size(kept), " ", figures.bar(kept, limit, width, glyphs=marks), f" of {size(limit)}", (left, DIM)
    )


def rates(document: StatusDocument) -> Text:
    """Render rates of the last seconds."""
    of = document.rate
    parts = [f"{rate(of.events_per_second)} events/s"]
    if of.bytes_per_second is not None:
        parts.append(f"{size(of.bytes_per_second)}/s")
    if of.transactions_per_second is not None:
        parts.append(f"{rate(of.transactions_per_second)} transactions/s")
    return Text(_DOT.join(parts))


def in_flight(document: StatusDocument) -> Text:
    """Render what was read and is not confirmed by Kafka."""
    of = document.in_flight
    text = Text(f"{plural(of.events, 'event')} in {plural(of.transactions, 'transaction')}")
    if of.oldest_seconds is not None:
        text.append(f", the oldest {span(of.oldest_seconds)} old", style="yellow" if of.oldest_seconds > 5 else DIM)
    return text


def latency(document: StatusDocument) -> Text:
    """Render percentiles of the time from commit to Kafka's confirmation."""
    of = document.latency
    shown = (("p50", of.p50_ms), ("p95", of.p95_ms), ("p99", of.p99_ms), ("max", of.max_ms))
    text = Text()
    for name, value in shown:
        text.append(f"{name} ", style=DIM).append(f"{milliseconds(value)}  ")
    return text


def slot(document: StatusDocument) -> Text:
    """Render name, position and health of the slot."""
    of = document.slot
    text = Text(plain(of.name))
    if of.confirmed:
        text.append(f" at {plain(of.confirmed)}")
    if of.confirmed_age_seconds is not None:
        text.append(f", moved {span(of.confirmed_age_seconds)} ago", style=DIM)
    if of.wal_status:
        text.append(f"{_DOT}WAL {plain(of.wal_status)}", style=DIM if of.wal_status == "reserved" else "yellow")
    return text


def polling(of: PollingStatus) -> Text:
    """Render what waits for a relay that queries the table."""
    parts = [f"run by {plain(of.holder)}"] if of.holder else []
    if of.unconfirmed_rows is not None:
        parts.append(f"{plural(of.unconfirmed_rows, 'row')} not confirmed")
    if of.unbatched_rows is not None:
        parts.append(f"{plural(of.unbatched_rows, 'row')} in no batch")
    if of.oldest_row_seconds:
        parts.append(f"the oldest {span(of.oldest_row_seconds)} old")
    if of.batch_rows is not None:
        parts.append(f"last batch {plural(of.batch_rows, 'row')}")
    strays = f"{_DOT}{plural(of.strays, 'stray')}" if of.strays else ""
    return Text.assemble(_DOT.join(parts), (strays, "yellow"))


def memory(document: StatusDocument) -> Text:
    """Render the slot's last position in Kafka."""
    assert document.memory
    when = "" if document.memory.age_seconds is None else f", {span(document.memory.age_seconds)} ago"
    return Text.assemble(f"last position {plain(document.memory.confirmed or '')}", (when, DIM))


def publisher(document: StatusDocument) -> Text:
    """Render facts of the process."""
    of = document.publisher
    assert of
    parts = [f"pid {of.pid}", f"up {span(of.uptime_seconds)}", plain(of.guarantee or "")]
    native = (of.accelerator or "").startswith("native")
    parts.append("native accelerator" if native else "plain Python" if of.accelerator else "")
    if of.reconnects:
        parts.append(plural(of.reconnects, "reconnect"))
    return Text(_DOT.join([*filter(None, parts), f"version {plain(document.version)}"]))


def totals(document: StatusDocument) -> Text:
    """Render counters since the process started."""
    of = document.totals
    parts = [f"{count(of.delivered)} delivered", size(of.bytes), plural(of.transactions, "transaction")]
    rare = [f"{count(n)} {name.replace('_', ' ')}" for name in _RARE if (n := getattr(of, name))]
    others = sum(document.other_messages.values())
    rare += [f"{count(others)} other messages"] if others else []
    return Text.assemble(_DOT.join(parts), ("".join(_DOT + each for each in rare), "yellow"))


def last_error(document: StatusDocument) -> Text:
    """Render the last error and its age."""
    if document.last_error is None:
        return Text("none", style=DIM)
    ago = figures.age(document.last_error.time, document.time)
    text = f"{span(ago)} ago: {plain(document.last_error.kind or '')}: {plain(document.last_error.message)}"
    return Text(text, style="red" if ago is None or ago < 60 else "yellow")


def topics(document: StatusDocument, most: int, width: int) -> Table:
    """Render the busiest topics in at most `most` rows, and how many are left out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=DIM, border_style=DIM)
    table.add_column("topic", overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("events/s", "events", "size")[: 3 if width >= _WIDE else 2]:
        table.add_column(name, justify="right", no_wrap=True, min_width=9)
    busiest = sorted(document.topics.items(), key=lambda item: (-(item[1].events_per_second or 0), item[0]))
    shown = most if len(busiest) <= most else max(0, most - 1)
    for name, of in busiest[:shown]:
        cells = (rate(of.events_per_second), count(of.events), size(of.bytes))
        table.add_row(Text(plain(name)), *cells[: len(table.columns) - 1])
    if len(busiest) > shown:
        table.add_row(Text(f"and {len(busiest) - shown:,} more", style=DIM))
    return table

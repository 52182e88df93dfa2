"""Where the publisher stands, as lines and tables for people.

Texts are data of others: none is taken for markup, and none moves the cursor.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cdc.cli.screen import figures
from cdc.cli.screen.figures import EIGHTHS, milliseconds, plural, rate, size, span
from cdc.logs.format import plain
from cdc.status.document import Report
from cdc.telemetry.health import WORDS, State

COLOURS: Final = {
    State.IDLE: "green",
    State.STREAMING: "green",
    State.CATCHING_UP: "cyan",
    State.STANDBY: "cyan",
    State.STARTING: "yellow",
    State.STOPPING: "yellow",
    State.BLOCKED_BY_KAFKA: "yellow",
    State.BLOCKED_BY_REGISTRY: "yellow",
    State.BLOCKED_BY_POSTGRES: "yellow",
}
"""The others need a person: they are red."""
DIM: Final = "bright_black"
PIPE_WIDTH: Final = 200
"""Into a pipe or a file there is no width to keep to."""

_TOPICS: Final = 12
_WIDE: Final = 70
_INDENT: Final = (0, 0, 0, 2)
_DOT: Final = " · "
_RARE: Final = ("poison", "dead_letters", "skipped_replays", "sent_again")


def glyphs(console: Console) -> str:
    """What charts are drawn with on this terminal."""
    return figures.ASCII if console.options.ascii_only else EIGHTHS


def show(report: Report, console: Console) -> RenderableType:
    """All of it, for once."""
    width, marks = console.width, glyphs(console)
    parts: list[RenderableType] = [*notes(report), headline(report), Text()]
    parts.append(Padding(grid(facts(report, width, marks)), _INDENT, expand=False))
    if report.topics:
        parts += [Text(), Padding(topics(report, _TOPICS, width), _INDENT, expand=False)]
    if report.hint:
        parts += [Text(), Text(plain(report.hint), style="bold")]
    return Group(*parts)


def notes(report: Report) -> list[Text]:
    """What is to be known before the numbers."""
    return [Text(plain(note), style="yellow") for note in report.notes]


def colour(report: Report) -> str:
    """Of the state."""
    return "red" if report.state is None else COLOURS.get(report.state, "red")


def headline(report: Report) -> Text:
    """The state and its sentence."""
    state = "unknown" if report.state is None else WORDS[report.state]
    told = plain(report.summary).removeprefix(state).removeprefix(":").strip()
    if not told and report.rate.events_per_second is not None:
        told = f"{rate(report.rate.events_per_second)} events/s, {span(report.lag.seconds)} behind"
    passed = figures.age(report.since, report.time)
    return Text.assemble(
        (f"● {state}", f"bold {colour(report)}"),
        f"  {told}" if told else "",
        (f"  for {span(passed)}" if passed is not None else "", DIM),
    )


def grid(rows: Iterable[tuple[str, Text]]) -> Table:
    """Names and values, two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def facts(report: Report, width: int, marks: str, *, sparks: bool = True) -> Iterator[tuple[str, Text]]:
    """Everything but the topics; what nobody knows is left out."""
    if report.lag.bytes is not None:
        yield "lag", lag(report)
    if sparks:
        yield from _sparks(report, max(10, min(60, width - 40)), marks)
    if report.slot.retained_bytes is not None:
        yield "retained", retained(report, max(8, min(30, width - 50)), marks)
    if report.rate.events_per_second is not None:
        yield "rate", rates(report)
        yield "in flight", in_flight(report)
    if report.latency.count:
        yield "latency", latency(report)
    yield "slot", slot(report)
    if report.memory:
        yield "Kafka", memory(report)
    if report.table:
        rows = "unknown number of rows" if report.table.rows is None else f"about {plural(report.table.rows, 'row')}"
        yield "table", Text(f"{plain(report.table.name)}{_DOT}{rows}")
    if report.publisher:
        yield "publisher", publisher(report)
        yield "totals", totals(report)
        yield "last error", last_error(report)


def _sparks(report: Report, width: int, marks: str) -> Iterator[tuple[str, Text]]:
    history = report.history
    if history.events_per_second:
        (line,) = figures.chart(history.events_per_second, min(width, len(history.events_per_second)), 1, glyphs=marks)
        yield "events/s", Text.assemble((line, "green"), (f"  {_peak(history.events_per_second, rate)}", DIM))
    if any(history.lag_bytes) and len(history.lag_bytes) > 1:
        (line,) = figures.chart(history.lag_bytes, min(width, len(history.lag_bytes)), 1, glyphs=marks)
        yield "lag, bytes", Text.assemble((line, "cyan"), (f"  {_peak(history.lag_bytes, size)}", DIM))


def _peak(values: list[float | None], shown: figures.Shown) -> str:
    top = max((value for value in values if value is not None), default=None)
    return f"up to {shown(top)}"


def lag(report: Report) -> Text:
    """How far behind, in bytes, seconds and events, as far as they are known."""
    of, parts = report.lag, [size(report.lag.bytes)]
    if of.seconds is not None:
        parts.append(span(of.seconds))
    if of.events is not None:
        parts.append(plural(of.events, "event"))
    return Text(_DOT.join(parts), style="bold")


def retained(report: Report, width: int, marks: str) -> Text:
    """The WAL that PostgreSQL keeps for the slot, against its limit."""
    kept, limit, safe = report.slot.retained_bytes or 0, report.slot.limit_bytes, report.slot.safe_bytes
    if limit is None:
        return Text.assemble(size(kept), (f"{_DOT}no limit (max_slot_wal_keep_size)", DIM))
    left = "" if safe is None else f"{_DOT}{size(safe)} left"
    return Text.assemble(
        size(kept), " ", figures.bar(kept, limit, width, glyphs=marks), f" of {size(limit)}", (left, DIM)
    )


def rates(report: Report) -> Text:
    """Of the last seconds."""
    of = report.rate
    parts = [f"{rate(of.events_per_second)} events/s"]
    if of.bytes_per_second is not None:
        parts.append(f"{size(of.bytes_per_second)}/s")
    if of.transactions_per_second is not None:
        parts.append(f"{rate(of.transactions_per_second)} transactions/s")
    return Text(_DOT.join(parts))


def in_flight(report: Report) -> Text:
    """Read, and not confirmed by Kafka."""
    of = report.in_flight
    text = Text(f"{plural(of.events, 'event')} in {plural(of.transactions, 'transaction')}")
    if of.oldest_seconds is not None:
        text.append(f", the oldest {span(of.oldest_seconds)} old", style="yellow" if of.oldest_seconds > 5 else DIM)
    return text


def latency(report: Report) -> Text:
    """Percentiles from commit to Kafka's confirmation."""
    of = report.latency
    shown = (("p50", of.p50_ms), ("p95", of.p95_ms), ("p99", of.p99_ms), ("max", of.max_ms))
    text = Text()
    for name, value in shown:
        text.append(f"{name} ", style=DIM).append(f"{milliseconds(value)}  ")
    return text


def slot(report: Report) -> Text:
    """Name, place and health of the slot."""
    of = report.slot
    text = Text(plain(of.name))
    if of.confirmed:
        text.append(f" at {plain(of.confirmed)}")
    if of.confirmed_age_seconds is not None:
        text.append(f", moved {span(of.confirmed_age_seconds)} ago", style=DIM)
    if of.wal_status:
        text.append(f"{_DOT}WAL {plain(of.wal_status)}", style=DIM if of.wal_status == "reserved" else "yellow")
    return text


def memory(report: Report) -> Text:
    """What Kafka remembers of the slot."""
    assert report.memory
    when = "" if report.memory.age_seconds is None else f", told {span(report.memory.age_seconds)} ago"
    return Text.assemble(f"remembers {plain(report.memory.confirmed or '')}", (when, DIM))


def publisher(report: Report) -> Text:
    """The process."""
    of = report.publisher
    assert of
    parts = [f"pid {of.pid}", f"up {span(of.uptime_seconds)}", plain(of.guarantee or "")]
    native = (of.accelerator or "").startswith("native")
    parts.append("native accelerator" if native else "plain Python" if of.accelerator else "")
    if of.reconnects:
        parts.append(plural(of.reconnects, "reconnect"))
    return Text(_DOT.join([*filter(None, parts), f"version {plain(report.version)}"]))


def totals(report: Report) -> Text:
    """Since the process began."""
    of = report.totals
    parts = [f"{figures.count(of.delivered)} delivered", size(of.bytes), plural(of.transactions, "transaction")]
    rare = [f"{figures.count(n)} {name.replace('_', ' ')}" for name in _RARE if (n := getattr(of, name))]
    return Text.assemble(_DOT.join(parts), ("".join(_DOT + each for each in rare), "yellow"))


def last_error(report: Report) -> Text:
    """The last error, and how long ago it was."""
    if report.last_error is None:
        return Text("none", style=DIM)
    ago = figures.age(report.last_error.time, report.time)
    text = f"{span(ago)} ago: {plain(report.last_error.kind or '')}: {plain(report.last_error.message)}"
    return Text(text, style="red" if ago is None or ago < 60 else "yellow")


def topics(report: Report, most: int, width: int) -> Table:
    """The busiest topics, in at most so many rows, and how many are left out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=DIM, border_style=DIM)
    table.add_column("topic", overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("events/s", "events", "size")[: 3 if width >= _WIDE else 2]:
        table.add_column(name, justify="right", no_wrap=True, min_width=9)
    busiest = sorted(report.topics.items(), key=lambda item: (-(item[1].events_per_second or 0), item[0]))
    shown = most if len(busiest) <= most else max(0, most - 1)
    for name, of in busiest[:shown]:
        cells = (rate(of.events_per_second), figures.count(of.events), size(of.bytes))
        table.add_row(Text(plain(name)), *cells[: len(table.columns) - 1])
    if len(busiest) > shown:
        table.add_row(Text(f"and {len(busiest) - shown:,} more", style=DIM))
    return table

"""What `status` shows to people: at every size readable, and never more than its own."""

import io
from typing import Any

import orjson
import pytest
from rich.console import Console

from cdc.cli.screen import panel, watching
from cdc.cli.screen.board import board
from cdc.status import document, from_slot
from cdc.status.document import StatusDocument
from cdc.status.from_metrics import describe
from cdc.telemetry.health import State
from tests import specimen
from tests.unit.status.test_status_from_slot import MEMORY, READ, SEEN

NOW = 1_790_000_000.0
URL = "http://127.0.0.1:8080"


def at_work(**changes: Any) -> StatusDocument:
    """A publisher that streams."""
    figures = {
        "lag": {"bytes": 2000, "seconds": 0.02, "events": 10},
        "rate": {"events_per_second": 100.0, "bytes_per_second": 100.0, "transactions_per_second": 30.0},
        "in_flight": {"events": 10, "transactions": 4, "oldest_seconds": 0.02},
    }
    served = describe(specimen.metrics(NOW), specimen.IDENTITY, NOW).served() | figures | changes
    return document.parse(orjson.dumps(served), URL)


STANDINGS = {
    "at work": at_work(),
    "idle and new": at_work(
        topics={}, last_error=None, latency={"count": 0}, history={"times": [], "events_per_second": []}
    ),
    "many topics": at_work(topics={f"outbox.event.topic-{n}": {"events": n, "bytes": n} for n in range(3000)}),
    "long topics": at_work(topics={"t" * 249: {"events": 2**53, "bytes": 2**53, "events_per_second": 1e9}}),
    "an error": at_work(state="failed", ready=False, summary="failed: " + "poison event " * 40),
    "stopped": from_slot.describe(SEEN, MEMORY),
    "read": from_slot.describe(READ, MEMORY),
    "unknown": document.unknown("slot", "pub", "2026-01-31T10:00:00Z", "PostgreSQL cannot be reached", "check it"),
}


def console(width: int, height: int = 25, **options: Any) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, **options)


def printed(to: Console, what: Any) -> str:
    to.print(what)
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def panel_of(found: StatusDocument, width: int = 100, **options: Any) -> str:
    to = console(width, **options)
    return printed(to, panel.show(found, to))


def board_of(found: StatusDocument, width: int = 100, height: int = 40, **options: Any) -> str:
    to = console(width, height, **options)
    return printed(to, board(found, to, 1.0))


@pytest.mark.parametrize("found", STANDINGS.values(), ids=STANDINGS)
@pytest.mark.parametrize("width", [40, 60, 80, 133, 250])
def test_no_line_is_wider_than_the_terminal(found: StatusDocument, width: int) -> None:
    assert max(map(len, panel_of(found, width).split("\n"))) <= width
    for height in (10, 24, 60):
        assert max(map(len, board_of(found, width, height).split("\n"))) <= width


@pytest.mark.parametrize("found", STANDINGS.values(), ids=STANDINGS)
@pytest.mark.parametrize("size", [(80, 24), (100, 34), (140, 40), (60, 40), (250, 80)])
def test_the_board_fills_the_screen_and_ends_with_how_to_leave(found: StatusDocument, size: tuple[int, int]) -> None:
    lines = board_of(found, *size).removesuffix("\n").split("\n")
    assert len(lines) == size[1]
    assert lines[-1].rstrip().endswith("Ctrl-C leaves")


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (20, 2), (300, 4)])
def test_the_smallest_terminal_breaks_nothing(size: tuple[int, int]) -> None:
    for found in STANDINGS.values():
        assert board_of(found, *size)


def test_the_panel_shows_every_fact_of_a_running_publisher() -> None:
    shown = panel_of(at_work())
    for text in (
        "● streaming  100 events/s, 0.0 s behind  for 5 min",
        "2.0 kB · 0.0 s · ",
        "2.1 MB ━━━━━━",
        " of 10.5 MB · 8.4 MB left",
        "100 events/s · 100 B/s · 30 transactions/s",
        "10 events in 4 transactions, the oldest 0.0 s old",
        "p50 3.0 ms  p95 20.0 ms  p99 20.0 ms  max 20.0 ms",
        "cdc_publisher at 0/1388, moved 0.5 s ago · WAL reserved",
        "pid 7 · up 5 min 10 s · at-least-once · plain Python · version 0.1.0",
        "30,000 delivered · 3.0 MB · 10,000 transactions",
        "3 min 20 s ago: KafkaUnavailable: no broker answers",
    ):
        assert text in shown, shown
    (topic,) = (line for line in shown.split("\n") if "outbox.event.order" in line and "30,000" in line)
    assert topic.split()[-3:] == ["30,000", "3.0", "MB"]


def test_the_panel_without_a_publisher_says_first_where_it_has_it_from() -> None:
    found = from_slot.describe(SEEN, MEMORY).model_copy(update={"notes": ["nobody answers: from the database alone"]})
    lines = panel_of(found).split("\n")
    assert lines[0].rstrip() == "nobody answers: from the database alone"
    assert lines[1].rstrip() == "● stopped  no process reads the slot; 12.3 MB behind  for 1 h"
    assert lines[-2] == "start it with: cdc-publisher start"
    shown = "\n".join(lines)
    assert "last position 0/F4240, 12 s ago" in shown
    assert "public.outbox · about 1,200 rows" in shown
    for unknown in ("rate", "in flight", "latency", "pid", "last error", " - "):
        assert unknown not in shown


@pytest.mark.parametrize(
    ("state", "colour"),
    [
        ("idle", "32"),
        ("streaming", "32"),
        ("standby", "36"),
        ("catching_up", "36"),
        ("blocked_by_kafka", "33"),
        ("blocked_by_registry", "33"),
        ("blocked_by_postgres", "33"),
        ("starting", "33"),
        ("stopping", "33"),
        ("stalled", "31"),
        ("slot_lost", "31"),
        ("failed", "31"),
        ("stopped", "31"),
    ],
)
def test_the_state_has_its_colour_on_a_terminal(state: str, colour: str) -> None:
    shown = panel_of(at_work(state=state), force_terminal=True, color_system="standard")
    assert f"\x1b[1;{colour}m● " in shown


def test_every_state_has_a_colour_or_is_red_on_purpose() -> None:
    assert set(State) - panel.COLOURS.keys() == document.NEEDS_A_PERSON


def test_colour_goes_where_it_is_not_wanted_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in panel_of(at_work())  # no terminal
    monkeypatch.setenv("NO_COLOR", "1")
    shown = panel_of(at_work(), force_terminal=True)
    assert not {f"\x1b[{code}m" for code in (31, 32, 33, 36, 90)} & set(shown.split("●"))
    assert "[32m" not in shown


def test_texts_of_others_move_no_cursor_and_are_no_markup() -> None:
    hostile = "\x1b[2J\x1b]0;taken\x07[red]x[/red]\r\n"
    found = at_work(
        summary=f"streaming: {hostile}",
        version=hostile,
        topics={hostile: {"events": 1}},
        last_error={"time": hostile, "kind": hostile, "message": hostile},
        slot={"name": hostile, "confirmed": hostile, "wal_status": hostile},
    )
    for shown in (panel_of(found), board_of(found), watching.line(found)):
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\r" not in shown
    assert "[red]x[/red]" in panel_of(found)


def test_the_board_prefers_numbers_to_charts_and_charts_to_topics() -> None:
    low, middle, high = (board_of(STANDINGS["many topics"], 100, height) for height in (15, 19, 40))
    assert "latency" in low
    assert "events/s 100" not in low
    assert "events/s 100" in middle
    assert "outbox.event" not in middle
    assert "outbox.event" in high
    assert "and 2,99" in high


def test_without_special_characters_everything_is_ascii() -> None:
    class Old(io.StringIO):
        encoding = "ascii"

    to = Console(file=Old(), width=100, height=40)
    to.print(board(at_work(), to, 1.0))
    assert isinstance(to.file, io.StringIO)
    drawn = {c for c in to.file.getvalue() if not c.isascii()}
    assert drawn <= {"●", "·"}, drawn


def test_a_screen_that_is_not_renewed_says_so() -> None:
    found = at_work()
    assert watching.aged(found, 5.0, 1.0) is found
    assert watching.aged(found, 61.0, 60.0) is found
    assert watching.aged(found, 75.0, 1.0).notes == ["no answer for 1 min 15 s: showing the last answer"]


def test_a_line_has_the_most_important_facts() -> None:
    assert watching.line(at_work()) == (
        "2026-09-21T14:13:20.000Z  streaming  100 events/s  lag 2.0 kB, 0.0 s, 10 events"
        "  retained 2.1 MB of 10.5 MB  in flight 10  p95 20.0 ms"
    )
    stopped = from_slot.describe(SEEN, MEMORY).model_copy(update={"notes": ["from the database alone"]})
    assert watching.line(stopped) == (
        "2026-01-31T10:00:00.000Z  stopped  lag 12.3 MB  retained 12.4 MB of 100.0 MB  (from the database alone)"
    )

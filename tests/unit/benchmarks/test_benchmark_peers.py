"""Other programs beside the publisher: how they are given, and what of their records is an event."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import peer_runs, peers, tables, workload
from benchmarks.peer_runs import Arrivals, found_id
from benchmarks.peers import Task

EVENT = workload.event_id(7)
OTHER = "7d3c0000-0000-4000-8000-000000000000"  # no event has it


def message(value: bytes = b"", key: bytes | None = None, headers: Any = None, at: int = 0) -> Any:
    return SimpleNamespace(value=lambda: value, key=lambda: key, headers=lambda: headers, timestamp=lambda: (2, at))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A task for servers that are not asked."""
    servers = SimpleNamespace(kafka="k:9092")
    backlog: Any = SimpleNamespace(dsn="host=pg port=5433 user=u password=secret dbname=shop", servers=servers)
    return Task(backlog, "slot_1", "prefix", tmp_path)


def test_an_event_is_known_by_its_id_wherever_a_program_puts_it() -> None:
    assert found_id(message(headers=[("traceparent", OTHER.encode()), ("id", EVENT.encode())])) == EVENT
    assert found_id(message(b'{"after": {"other": "%s", "id": "%s"}}' % (OTHER.encode(), EVENT.encode()))) == EVENT
    assert found_id(message(key=EVENT.encode())) == EVENT
    assert found_id(message(b"{}", b"key-7", [("id", OTHER.encode())])) is None


def test_a_record_of_an_event_that_has_one_is_a_duplicate_and_the_first_one_counts() -> None:
    arrivals = Arrivals()
    for at, number in ((5, 1), (6, 2), (9, 1)):
        arrivals.add(message(key=workload.event_id(number).encode(), at=at))
    assert (arrivals.count, arrivals.duplicates) == (3, 1)
    assert arrivals.first == {workload.event_id(1): 5, workload.event_id(2): 6}


def test_another_program_is_a_command_line_with_the_servers_in_it(task: Task) -> None:
    peer = peers.given("other=./other --db '{url}' --slot={slot} to {kafka} {topic}")
    assert peer.name == "other"
    url = "postgres://u:secret@pg:5433/shop"
    assert peer.command(task).arguments == ["./other", "--db", url, "--slot=slot_1", "to", "k:9092", "prefix.order"]


@pytest.mark.parametrize("text", ["other", "=./other", "other= ", "other='"])
def test_what_is_no_program_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"NAME=COMMAND|quotation"):
        peers.given(text)


def test_mq_bridge_gets_one_route_from_the_slot_to_the_topic(task: Task) -> None:
    peer = peers.known("mq-bridge")
    assert peer
    peer.command(task)
    route = (task.folder / "route.json").read_text()
    assert '"slot_name": "slot_1"' in route
    assert '"topic": "prefix.order"' in route


def test_the_table_has_a_line_for_each_program_and_says_which_failed() -> None:
    spread = {"median": 5.0, "lowest": 4.0, "highest": 6.0}
    killed = {"duplicates": 70_000, "lost": 0}
    measures = ("rate", "ratio", "cpu_us", "peak_mb", "first_seconds")
    whole = {
        **dict.fromkeys(measures, spread),
        "killed_in_backlog": killed,
        "latency": {"ms": {"p50": 1.0, "p99": 9.0}},
    }
    part = {
        "workload": {"events": 1000, "rows": 5},
        "rounds": 3,
        "peers": {"native": {"sends": "Avro", **whole}, "other": {"sends": "JSON"}},
        "failures": {"other": "a backlog: it ended with 1"},
    }
    page = tables.markdown({"peers": {"machine": {"date": "2026-01-31", "cpu": "of a test"}, **part}})
    assert "| native | Avro | 5 | 5.00 | 5.0 | 5 | 5.00 | 1.0 / 9.0 | 70,000 / - | 0 / - |" in page
    assert "| other |" not in page
    assert "**Failed:** other, a backlog: it ended with 1." in page


def test_a_ratio_is_that_of_runs_of_the_same_round() -> None:
    runs: Any = [SimpleNamespace(rate=rate) for rate in (50.0, 90.0)]
    ceiling: Any = [SimpleNamespace(rate=100.0), SimpleNamespace(rate=100.0)]
    assert peer_runs.ratio(runs, ceiling)["median"] == pytest.approx(0.7)

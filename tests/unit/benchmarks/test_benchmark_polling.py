"""Polling beside the slot: what runs, what counts as verified, and what the tables show."""

from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from benchmarks import backlog, document, polling, processes, records, results, tables, workload
from benchmarks.__main__ import cli
from benchmarks.backlog import ROWS, Backlog, Source
from benchmarks.records import Records, Unverified
from benchmarks.workload import Workload
from cdc.lsn import LSN, EventPosition
from cdc.polling.numbers import Numbers
from tests import ROOT

MACHINE = {"date": "2026-01-31 10:00 UTC", "cpu": "of a test"}


@pytest.fixture
def part() -> dict[str, Any]:
    """The section of two rounds, one contestant of which runs without its CPU time being visible."""
    of_a_run = {"cpu_us": 4.0, "first_seconds": 0.5, "written_us": 30.0, "vacuum_us": 1.5, "kept": 0, "dead": 0}
    seen = [{"rate": rate, "postgres_us": 12.0, **of_a_run} for rate in (1_000.0, 3_000.0)]
    unseen = [{**run, "postgres_us": None, "dead": 1_000} for run in seen]
    steady = {
        "seconds": 600.0,
        "ms": {"p50": 1.25, "p99": 9.0},
        "cpu_us": 20.0,
        "postgres_us": 150.0,
        "dead": 2_000,
        "kept": 1_900,
    }
    return {
        "machine": MACHINE,
        "workload": {"events": 1_000, "rows": 5},
        "rounds": 2,
        "backlog": {"slot": polling.summary(seen), "polling": polling.summary(unseen)},
        "asked": 1_000,
        "steady": {
            polling.WRITERS: {"seconds": 20.0, "postgres_us": 120.0, "dead": 0, "kept": 0},
            f"polling, {polling.OPEN}": {"seconds": 600.0, **steady},
        },
    }


def found(*partitions: list[int]) -> Records:
    return Records(numbers={at: array("Q", numbers) for at, numbers in enumerate(partitions)})


def test_events_are_verified_once_each_and_in_order_for_each_key() -> None:
    records.verify_numbers(found([1, 4, 7, 2], [3, 5, 6]), 3, 7)
    records.verify_numbers(found([2, 1]), 2, 2)  # two keys have no order


@pytest.mark.parametrize(
    ("partitions", "complaint"),
    [
        ([[4, 1], [2, 3]], "partition 0 has event 1 behind event 4"),
        ([[1, 2], [3, 3]], "partition 1 has event 3 behind event 3"),
        ([[1, 2], [2, 3, 4]], "5 records are not the 4 events"),
        ([[1, 2], [3]], "3 records are not the 4 events"),
        ([[1, 2], [3, 5]], "4 records are not the 4 events"),
        ([], "0 records are not the 4 events"),
    ],
)
def test_reordered_repeated_and_missing_events_make_a_run_invalid(partitions: list[list[int]], complaint: str) -> None:
    with pytest.raises(Unverified, match=complaint):
        records.verify_numbers(found(*partitions), 3, 4)


def test_positions_of_a_relay_fit_into_64_bits_in_their_order() -> None:
    numbers = Numbers(epoch=7)
    first = numbers.next()
    numbers.catch_up()
    given = [EventPosition(first, 0), EventPosition(first, 5), *(EventPosition(numbers.next(), at) for at in (0, 1))]
    kept = array("Q", [records._position(b"stream-%016x-%08x" % one[:2])[1] for one in given])
    assert list(kept) == sorted(set(kept))
    assert records._position(b"7-%x-%x" % (LSN(5 << 23), 3)) == (b"7", 5 << 46 | 3)


def test_cpu_time_of_processes_includes_those_that_have_ended() -> None:
    def gone() -> None:
        raise psutil.NoSuchProcess(1)

    child = SimpleNamespace(user=1.0, system=0.5, children_user=0.0, children_system=0.0)
    parent = SimpleNamespace(user=0.25, system=0.25, children_user=10.0, children_system=2.0)
    found: list[Any] = [SimpleNamespace(cpu_times=read) for read in (lambda: parent, lambda: child, gone)]
    assert processes.total_seconds(found) == 14.0


def test_a_process_that_is_not_postgresql_shows_none_of_its_processes() -> None:
    assert processes.postgres(psutil.Process().pid) == []


def test_messages_have_the_columns_of_rows() -> None:
    given = Workload(10, columns=1)
    row, message = workload.rows_sql(given), workload.message_sql(given)
    names = row[1 : row.index(")")].split(", ")
    assert names == ["id", "aggregatetype", "aggregateid", "type", "payload", "extra_0"]
    assert all(f"'{name}', " in message for name in names)
    assert message.startswith("pg_logical_emit_message(true, 'outbox', ")


def test_messages_and_rows_are_written_by_transactions_of_the_same_length() -> None:
    given = Workload(100, rows=5)
    rows, messages = (backlog.insertion(given, 1, 100, source) for source in (ROWS, Source("--messages")))
    assert "perform pg_logical_emit_message" in messages
    assert "insert into outbox" not in messages
    assert rows.replace(f"insert into outbox {workload.rows_sql(given)}", "X") == messages.replace(
        f"perform {workload.message_sql(given)}", "X"
    )


def test_event_is_described_by_its_number() -> None:
    given = Workload(10, types=3, keys=7)
    event = workload.event(given, 5)
    assert (event["type"], event["key"]) == ("OrderPlaced2", "customer-3")
    assert workload.number(event["id"]) == event["value"]["order_id"] == 5


def test_a_relay_needs_no_slot(tmp_path: Path) -> None:
    servers: Any = SimpleNamespace(dsn="host=pg", kafka="k:9092")
    rows = Backlog(servers, Workload(0), tmp_path, Source("--polling"))
    with rows.slot(empty=True) as name:  # without a connection, a query would fail
        assert name == rows.base


def test_each_source_drains_a_backlog_and_rows_come_at_a_steady_rate() -> None:
    sources = {name: one.source.option for name, one in polling.known().items()}
    assert set(sources.values()) == {"", "--polling", "--messages"}
    steady = polling.steady()
    assert steady[polling.WRITERS][0].variant is None
    assert [name for name, (_, held) in steady.items() if held] == [
        f"{name}, {polling.OPEN}" for name in (polling.WRITERS, "slot", "polling", "polling, mark")
    ]
    assert steady.keys() >= sources.keys() - {"messages"}


def test_figures_that_a_run_lacks_are_left_out_and_shown_as_a_dash(part: dict[str, Any]) -> None:
    assert part["backlog"]["slot"]["rate"]["median"] == 2_000
    assert "postgres_us" not in part["backlog"]["polling"]
    text = tables.markdown({"polling": part})
    assert "1,000 events/s, also while another transaction stays open" in text
    assert "| slot | 2,000 (1,000 to 3,000) | 4.00 | 12.00 | 30.00 | 0 | 1.50 |" in text
    assert "| polling | 2,000 (1,000 to 3,000) | 4.00 | - | 30.00 | 1,000 | 1.50 |" in text
    assert "| polling, a transaction open | 600 | 1.2 | 9.0 | 20.0 | 150.0 | 2,000 | 1,900 |" in text
    assert "| writers alone | 20 | - | - | - | 120.0 | 0 | 0 |" in text


def test_results_of_polling_are_compared_by_figures_and_not_by_options(part: dict[str, Any]) -> None:
    names = [one.name for one in results.changes({"polling": part}, {"polling": part})]
    assert "polling backlog slot rate" in names
    assert "polling steady polling, a transaction open ms p99" in names
    assert not [name for name in names if name.endswith(" seconds") or "asked" in name or "rounds" in name]


def test_one_line_can_be_measured_again_and_the_others_stay(part: dict[str, Any], tmp_path: Path) -> None:
    results.save(tmp_path, {"polling": part})
    name = f"polling, {polling.OPEN}"
    again = {"seconds": 30.0, "dead": 1, "kept": 1}
    alone = {**part, "backlog": {}, "steady": {name: again}, results.ADDED_TO: ["backlog", "steady"]}
    saved = results.save(tmp_path, {"polling": alone})["polling"]
    assert saved["backlog"] == part["backlog"]
    assert saved["steady"] == {**part["steady"], name: again}
    refused = CliRunner().invoke(cli, ["polling", "--only", "absent"])
    assert (refused.exit_code, name in refused.output) == (2, True)


def test_the_page_about_polling_has_a_place_for_them(part: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "polling.md").read_text()
    assert "### Polling" in document.replaced(page, {"polling": part}, [])


def test_line_shows_a_contestant_without_a_publisher(part: dict[str, Any]) -> None:
    alone = {**part["steady"][polling.WRITERS], "vacuum_us": 2.0}
    assert "PostgreSQL 120.00 us  0 dead rows  0 behind a vacuum" in polling.line("writers alone", alone)


def test_one_section_is_put_into_a_page_of_its_own(part: dict[str, Any], tmp_path: Path) -> None:
    results.save(tmp_path, {"polling": part, "other": {"machine": {"cpu": "elsewhere"}}})
    (tmp_path / "latency.png").write_bytes(b"chart")
    page = tmp_path / "page.md"
    page.write_text(f"{document.BEGIN}\n{document.END}\n")
    command = ["document", "--out", str(tmp_path), "--page", str(page), "--only"]
    assert CliRunner().invoke(cli, [*command, "polling"]).exit_code == 0
    text = page.read_text()
    assert "### Polling" in text
    assert "elsewhere" not in text
    assert "png" not in text
    missing = CliRunner().invoke(cli, [*command, "absent"])
    assert missing.exit_code == 2
    assert "no section 'absent'" in missing.output

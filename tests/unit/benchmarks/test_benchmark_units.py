"""Several publishers in one run: each row once, in order per key, and figures of all of them together."""

import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import fleet, processes, records, split
from benchmarks.__main__ import cli
from benchmarks.backlog import Backlog
from benchmarks.records import Records, Unverified
from benchmarks.runs import Run
from benchmarks.servers import Servers
from benchmarks.workload import Workload
from cdc.config import loading

KEYS = 3


def six_rows(folder: Path) -> Backlog:
    """Return a backlog of six rows of three keys, without a server: key 0 has the rows 3 and 6."""
    servers = Servers("postgresql://postgres@localhost:5432/postgres", "localhost:9092", "unknown", None)
    return Backlog(servers, Workload(6, keys=KEYS), folder)


def arrived(*found: tuple[bytes, int, int, int]) -> Records:
    """Records by slot, partition, position and number of the event."""
    made = Records(count=len(found))
    for slot, partition, position, number in found:
        made.positions.setdefault((slot, partition), array("Q")).append(position)
        made.numbers.setdefault(partition, array("Q")).append(number)
    return made


def test_parts_may_alternate_in_a_partition_and_have_the_same_positions(tmp_path: Path) -> None:
    # Rows 1 and 2 are of one transaction, and each is the first one of its part.
    found = [(b"a", 0, 10, 1), (b"a", 0, 12, 4), (b"b", 0, 10, 2), (b"b", 0, 12, 5), (b"a", 1, 11, 3), (b"a", 1, 13, 6)]
    records.verify(arrived(*found), six_rows(tmp_path))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([(b"a", 0, 10, 1), (b"a", 0, 11, 2), (b"a", 0, 12, 3)], "3 records instead of 6"),
        ([(b"a", 0, p, n) for p, n in ((1, 1), (2, 2), (2, 3), (4, 4), (5, 5), (6, 6))], "not in the order"),
        ([(b"a", n % 3, p, n) for p, n in ((1, 1), (1, 2), (3, 3), (4, 4), (5, 5), (6, 6))], "in two partitions"),
        # Two parts have sent the same row, and none the last one.
        (
            [(b"ab"[n % 2 :][:1], 0, p, n) for p, n in ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 5))],
            "event 5 behind event 5 of its key",
        ),
        ([(b"a", n % 3, n, n) for n in range(1, 6)] + [(b"b", 0, 7, 5)], "6 records are not the 6 events, once each"),
        # Another part was to have row 6 of the key, and has sent it before row 3.
        ([(b"b", 0, 6, 6), *((b"a", 0, n, n) for n in range(1, 6))], "event 3 behind event 6 of its key"),
    ],
)
def test_rows_that_are_missing_twice_or_out_of_order_make_a_run_invalid(
    found: list[tuple[bytes, int, int, int]], why: str, tmp_path: Path
) -> None:
    with pytest.raises(Unverified, match=why):
        records.verify(arrived(*found), six_rows(tmp_path))


def test_the_position_of_a_record_names_its_slot() -> None:
    first, second = records._position(b"a-0A-1"), records._position(b"b-0A-2")
    assert first == (b"a", 10 << 23 | 1)
    assert second[1] == first[1] + 1


def run(rate: float, cpu_us: float) -> Run:
    return Run("native", 1000, rate, rate, cpu_us, 70.0, 4.0, None)


def test_the_cpu_of_parts_is_without_that_of_their_starts() -> None:
    found = split.summary([run(10.0, 1500.0), run(20.0, 1700.0)], start_seconds=1.0)
    assert found["cpu_us"]["median"] == pytest.approx(600)
    assert found["rate"]["median"] == 15.0
    assert "broker_us" not in found


def test_memory_of_a_fleet_is_that_of_the_instance_and_of_each_unit() -> None:
    found = fleet.idle_summary(5, 60.0, 140.0, 0.02)
    assert found == {"all_mb": 140.0, "further_mb": 20.0, "instance_mb": 40.0, "cpu_share": 0.02}
    assert fleet.line(found).endswith("20.0 MB per further unit and 40.0 MB besides, 2.0 % of a core while idle")


def test_the_rate_in_a_fleet_is_held_against_that_of_its_round() -> None:
    runs = {fleet.SINGLE: [run(100.0, 1.0), run(50.0, 1.0)], fleet.FLEET: [run(90.0, 1.0), run(45.0, 1.0)]}
    assert fleet.ratio(runs) == pytest.approx({"median": 0.9, "lowest": 0.9, "highest": 0.9})
    assert "peak_mb" not in fleet.summary(runs[fleet.FLEET])  # is that of one of its processes


def test_a_process_counts_with_all_that_it_runs() -> None:
    waits = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        parent.stdout.readline()
        found = processes.tree(parent.pid)
        assert [process.pid for process in found][:1] == [parent.pid]
        assert len(found) == 2
        assert all(0 < processes.proportional_bytes(one) <= processes.resident_bytes(one.pid) for one in found)
        parent.communicate(b"\n")
    assert processes.tree(parent.pid) == []
    assert processes.proportional_bytes(found[0]) == 0


def test_the_file_of_a_unit_is_one_of_the_program(tmp_path: Path) -> None:
    rows = six_rows(tmp_path)
    (tmp_path / "a.units").mkdir()
    (tmp_path / "schemas").mkdir()
    fleet.add(rows, "a", "bench-1", "b")
    (file,) = (tmp_path / "a.units").glob("*.toml")
    settings = loading.load_unit(file, loading.Given(), None)
    assert (settings.postgres.slot, settings.avro.schemas) == ("b", tmp_path / "schemas")


@pytest.mark.parametrize("value", ["", "2,1", "0,1", "1,two", "2,2"])
def test_a_list_of_parts_that_does_not_grow_is_a_usage_error(value: str) -> None:
    done = CliRunner().invoke(cli, ["split", "--parts", value])
    assert done.exit_code == 2
    assert "is no list of growing numbers" in done.output

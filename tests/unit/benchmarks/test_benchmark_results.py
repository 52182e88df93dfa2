"""From runs to tables: what is measured is shown, compared, and held against the goals."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    charts,
    document,
    figures,
    fleet,
    goals,
    growth,
    latency,
    memory,
    results,
    split,
    tables,
    throughput,
)
from benchmarks.commits import Commit
from benchmarks.runs import Run
from benchmarks.workload import SHAPES
from tests import ROOT

MACHINE = {"date": "2026-01-31 10:00 UTC", "cpu": "of a test"}


def run(contestant: str, rate: float, **others: Any) -> Run:
    measured: dict[str, Any] = {"cpu_us": 5.0, "peak_mb": 70.0, "walsender_us": 4.0, "broker_us": 6.0, **others}
    return Run(contestant, 1000, rate, rate * 0.9, **measured)


def commit(name: str, returned: float, stamped: float | None = None) -> Commit:
    return Commit(name, returned, 0.001, stamped)


@pytest.fixture
def measured() -> dict[str, Any]:
    """One of everything, by the functions that make it."""
    runs = {
        "ceiling": [run("ceiling", 200.0, broker_us=None), run("ceiling", 100.0, broker_us=None)],
        "python": [run("python", 120.0), run("python", 50.0)],
        "exactly-once": [run("exactly-once", 60.0), run("exactly-once", 50.0)],
    }
    commits = [commit(str(number), 100 + number, 99.999 + number) for number in range(5)]
    appended = {str(number): (100 + number) * 1000 + 3 for number in range(5)}
    cells = {5: {"cpu_us": 2.0, "rate": 10.0}, 50: {"cpu_us": 4.0, "rate": 5.0}}
    spread = {"median": 0.9, "lowest": 0.8, "highest": 1.2}
    start = {part: {"streaming": spread, "first_event": spread} for part in ("warm", "cold")}
    parts: dict[str, dict[str, Any]] = {
        "throughput 200B": {
            "workload": {"events": 1000, "rows": 5, "keys": 10, "partitions": 4},
            "payload_bytes": 200,
            "ceiling_wait_us": 50,
            "contestants": {name: throughput.summary(found) for name, found in runs.items()},
            "ratios": throughput.ratios(runs),
            "doubts": throughput.doubtful(runs),
        },
        "latency": {"contestant": "python", "rates": {"1000": latency.summary(commits, appended, 0.01)}},
        "startup": {"contestant": "python", **start},
        "memory backlog": {
            "workload": {"events": 1000},
            "peak_mb": 120.0,
            "growth_mb": 1.5,
            "samples": [(0.0, 50.0), (0.5, 60.0)],
        },
        "split": {
            "workload": {"events": 1000},
            "parts": {str(number): {"python": split.summary(runs["python"], 0.001 * number)} for number in (1, 2)},
        },
        "fleet": {
            "contestant": "python",
            "units": 3,
            "idle": {
                fleet.SINGLE: fleet.idle_summary(3, 60.0, 160.0, 0.06),
                fleet.FLEET: fleet.idle_summary(3, 80.0, 100.0, 0.05),
            },
            "takeovers": {fleet.KILLED: figures.spread([11.0, 12.5])._asdict()},
            "one unit": {way: fleet.summary(runs["python"]) for way in (fleet.SINGLE, fleet.FLEET)},
            "ratio": fleet.ratio({fleet.SINGLE: runs["python"], fleet.FLEET: runs["python"]}),
        },
        "growth": {"contestant": "python", "dimensions": {"keys": growth.judged(cells, 0.0)}},
    }
    return {name: {"machine": MACHINE, **part} for name, part in parts.items()}


def test_ratios_of_contestants_are_paired_in_their_rounds(measured: dict[str, Any]) -> None:
    found = measured["throughput 200B"]["ratios"]
    assert found["python/ceiling"]["median"] == pytest.approx((0.6 + 0.5) / 2)
    assert found["python/ceiling"]["lowest"] == pytest.approx(0.5)
    assert "exactly-once/ceiling" in found


def test_a_measure_that_a_contestant_does_not_have_is_left_out(measured: dict[str, Any]) -> None:
    contestants = measured["throughput 200B"]["contestants"]
    assert "broker_us" not in contestants["ceiling"]
    assert contestants["python"]["rate"]["median"] == 85.0


def test_ceiling_that_varies_or_is_exceeded_is_reported(measured: dict[str, Any]) -> None:
    assert measured["throughput 200B"]["doubts"] == ["the ceiling went from 100 to 200/s: the machine was not quiet"]
    passed = {"ceiling": [run("ceiling", 100.0)], "python": [run("python", 101.0)]}
    assert throughput.doubtful(passed) == ["python reached 101/s, which is above the ceiling"]
    assert throughput.doubtful({"python": [run("python", 101.0)]}) == []
    assert "**Doubtful:** the ceiling went" in tables.markdown(measured)


def test_latency_drops_the_warm_up_and_counts_from_the_stamp_of_the_commit(measured: dict[str, Any]) -> None:
    found = measured["latency"]["rates"]["1000"]
    assert found["events"] == 3
    assert found["reached"] == pytest.approx(5 / 4)
    assert found["from"] == "the commit timestamp"
    # Appended within the millisecond that begins 3 ms after the return of COMMIT, stamped 1 ms before it.
    assert found["ms"]["p50"] == pytest.approx(4.5)
    assert found["ms_after_return"]["max"] == pytest.approx(3.5)


def test_without_stamps_latency_counts_from_the_return_of_commit() -> None:
    found = latency.summary([commit("a", 10.0), commit("b", 13.0)], {"a": 10_001, "b": 13_007}, 1.0)
    assert found["from"] == "the return of COMMIT"
    assert found["ms"] == found["ms_after_return"]
    assert found["ms"]["p50"] == pytest.approx(7.5)


def test_growth_is_the_last_quarter_over_the_second() -> None:
    assert memory.growth([10, 10, 60, 60, 65, 65, 70, 70]) == 10
    assert memory.growth([10, 60]) == 0


def test_cost_that_grows_where_it_should_not_is_named() -> None:
    cells = {value: {"cpu_us": cpu, "rate": 1000.0} for value, cpu in ((10, 2.0), (100, 2.1), (1000, 4.0))}
    named = growth.judged(cells, 0.0)["faster_than_linear"]
    assert [(step["to"], step["in"]) for step in named] == [(1000, "cpu")]
    assert growth.judged(cells, 1.0)["faster_than_linear"] == []


def test_time_that_grows_is_named_unless_the_events_come_at_their_own_time() -> None:
    cells = {10: {"cpu_us": 2.0, "rate": 1000.0}, 100: {"cpu_us": 2.0, "rate": 100.0}}
    named = growth.judged(cells, 0.0)["faster_than_linear"]
    assert [(step["to"], step["in"]) for step in named] == [(100, "time")]
    assert growth.judged(cells, 0.0, paced=True)["faster_than_linear"] == []


def test_dimensions_leave_out_backlogs_that_are_too_long() -> None:
    backlog = next(one for one in growth.dimensions(1000, 1_000_000) if one.name == "backlog")
    assert list(backlog.cells) == [100_000, 1_000_000]


def test_missed_goals_are_reported(measured: dict[str, Any]) -> None:
    found = {one.goal.name: one.met for one in goals.outcomes(measured)}
    assert found["plain Python, CPU us/event"]
    assert not found["plain Python, events/s over the ceiling's"]
    assert not found["latency at 1,000/s, p50 ms"]
    assert not found["peak MB, backlog"]
    assert not found["warm start to the first event, s"]
    assert found["fleet, MB per further unit"]
    assert "native, CPU us/event" not in found  # was not measured
    assert "**missed**" in tables.markdown(measured)


def test_goals_held_against_few_events_say_so(measured: dict[str, Any]) -> None:
    assert "with 1,000, what the start costs weighs on each" in tables.markdown(measured)
    measured["throughput 200B"]["workload"]["events"] = goals.MEANT_EVENTS
    assert "weighs on each" not in tables.markdown(measured)


def test_each_section_has_its_table(measured: dict[str, Any]) -> None:
    text = tables.markdown(measured)
    for heading in ("## Goals", "## Throughput, 200B", "## Latency", "## Start", "## Memory", "## Cost as work grows"):
        assert heading in text
    assert "| 2 | python | 85 (50 to 120) | 76 (45 to 108) | 3.00 | 4.00 | 6.00 |" in text
    assert "| fleet | 100 | 10.0 | 70.0 | 5.0 % of a core |" in text
    assert "| one of two instances is killed, with half of the units | 11.8 (11.0 to 12.5) |" in text
    assert "paired in each round: 1.000." in text
    assert "| python | 85 (50 to 120) |" in text
    assert "**Faster than linearly:** 5 to 50 in cpu, 5 to 50 in time." in text
    assert text.count("of a test") == 1  # one machine is described once


def test_results_keep_what_was_not_measured_again(measured: dict[str, Any], tmp_path: Path) -> None:
    results.save(tmp_path, measured)
    results.save(tmp_path, {"latency": {"machine": MACHINE, "rates": {}}})
    kept = results.read(tmp_path / results.FILE)
    assert kept["latency"]["rates"] == {}
    assert kept["startup"]["warm"]["first_event"]["median"] == 0.9
    assert results.read(tmp_path / results.PREVIOUS)["latency"]["rates"] != {}


def test_results_are_json_also_where_nothing_could_be_computed(tmp_path: Path) -> None:
    results.save(tmp_path, {"growth": {"machine": MACHINE, "steps": [math.nan, {"rate": math.inf}]}})
    text = (tmp_path / results.FILE).read_text()
    assert json.loads(text)["growth"]["steps"] == [None, {"rate": None}]


def test_changes_are_of_medians_and_single_figures_in_both(measured: dict[str, Any]) -> None:
    before = json.loads(json.dumps(measured))
    before["throughput 200B"]["contestants"]["python"]["rate"]["median"] = 42.5
    before["memory backlog"]["peak_mb"] = 0
    del before["startup"]
    found = {one.name: one for one in results.changes(before, measured)}
    assert found["throughput 200B contestants python rate"].percent == pytest.approx(100)
    assert math.isnan(found["memory backlog peak_mb"].percent)
    assert found["latency rates 1000 ms p50"].percent == 0
    assert not [name for name in found if "startup" in name or "lowest" in name or "runs" in name]
    assert "+100.0 %" in tables.changes(list(found.values()))


def test_the_page_gets_new_tables_between_its_marks_and_keeps_the_rest(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / "speed.md"
    page.write_text(f"# Speed\n\n{document.BEGIN}\nold\n{document.END}\nthe end\n")
    (tmp_path / "growth.png").write_bytes(b"chart")
    for _ in range(2):  # again and again
        document.write(page, measured, tmp_path)
    text = page.read_text()
    assert text.startswith("# Speed\n")
    assert text.endswith("the end\n")
    assert "\nold\n" not in text
    assert text.count("### Latency") == 1
    assert text.count("](images/growth.png)") == 1
    assert (tmp_path / "images" / "growth.png").read_bytes() == b"chart"
    assert json.loads((tmp_path / "speed.json").read_text()).keys() == measured.keys()


def test_a_page_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="no marks"):
        document.replaced("# Speed\n", {}, [])


def test_the_page_of_this_repository_has_the_marks() -> None:
    page = ROOT / "docs" / "speed.md"
    assert document.replaced(page.read_text(), {}, ["latency.png"]).count("![latency by rate](images/latency.png)") == 1


@pytest.mark.skipif(not charts.available(), reason="charts need the extra bench")
def test_charts_are_drawn_for_the_measured_sections(measured: dict[str, Any], tmp_path: Path) -> None:
    drawn = charts.draw(measured, tmp_path)
    assert {path.name for path in drawn} == {"throughput.png", "latency.png", "memory.png", "growth.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert charts.draw({}, tmp_path) == []


def test_every_shape_is_one_that_a_goal_or_a_user_may_ask_for() -> None:
    assert list(SHAPES) == ["200B", "1kB", "10kB", "one-row", "one-transaction"]

"""`cdc-publisher demo` as a user runs it, and failures of its comparison."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from cdc.demo import comparison
from cdc.demo.comparison import Expected
from cdc.demo.environment import Environment
from cdc.demo.reader import Arrival
from cdc.demo.shop import ShopEvent
from cdc.demo.tally import Tally
from cdc.local import accounts
from cdc.lsn import LSN
from tests import ROOT
from tests.pipeline import eventually

COMMAND = [sys.executable, "-m", "cdc", "demo"]
QUICK = [sys.executable, "-m", "tests.quick", "demo"]


@pytest.fixture
def home(folder: Path) -> Iterator[Path]:
    """The home directory of one demo, which is stopped afterwards."""
    yield folder / "demo"
    Environment(folder / "demo").stop()


def processes_of(home: Path) -> list[psutil.Process]:
    """All processes with `home` or its PostgreSQL's directory in their command line or as working directory."""
    names = (str(home), str(accounts.shelter(home / "stack" / "postgres")))
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + " " + process.cwd()
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(name in text for name in names):
            found.append(process)
    return found


def number(what: str, output: str) -> int:
    """Return the first number in the line of the comparison called `what`."""
    match = re.search(rf"{re.escape(what)}\s+([\d,]+)", output)
    assert match, output
    return int(match[1].replace(",", ""))


@pytest.mark.timeout(170)
def test_demo_passes_its_checks_and_removes_its_data(home: Path) -> None:
    environment = {**os.environ, "CDC_POSTGRES__DSN": "postgresql://nobody@nowhere.invalid/x", "PGSSLMODE": "require"}
    done = subprocess.run(
        [*COMMAND, "--home", str(home)], capture_output=True, text=True, timeout=160, check=False, env=environment
    )
    output = done.stdout
    assert done.returncode == 0, output + done.stderr
    committed = number("rows committed, counted by writers", output)
    assert committed > 2_000
    assert number("rows committed, counted by SQL", output) == committed
    assert number("events in Kafka, by distinct id", output) == committed
    for what in ("duplicates in Kafka", "rolled-back rows in Kafka", "keys out of order"):
        assert number(what, output) == 0
    assert re.search(r"rolled-back rows in Kafka +0 of [1-9]", output)
    assert "All checks passed" in output
    assert "WRONG" not in output
    assert "\x1b" not in output
    assert {"OrderPlaced", "PaymentCaptured", "OrderCancelled"} <= set(output.split())
    assert max(map(len, output.splitlines())) <= 120
    assert processes_of(home) == []
    assert {path.name for path in home.iterdir()} == {"lock"}


@pytest.mark.timeout(170)
@pytest.mark.parametrize("victim", ["demo", "publisher"])
def test_an_interrupted_demo_reports_it_and_stops_its_servers(home: Path, victim: str) -> None:
    with subprocess.Popen(
        [*QUICK, "--home", str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as demo:
        assert demo.stdout
        pid = next(match[1] for line in demo.stdout if (match := re.search(r"publisher runs as process (\d+)", line)))
        eventually(lambda: "streaming" in (home / "publisher.log").read_text(), "it publishes")
        if victim == "demo":
            demo.send_signal(signal.SIGINT)
        else:
            os.kill(int(pid), signal.SIGKILL)
        _, errors = demo.communicate(timeout=60)
    if victim == "demo":
        assert (demo.returncode, errors) == (130, "cdc-publisher: aborted\n")
    else:
        assert demo.returncode == 1
        assert "streaming" in errors  # from the publisher's log
        assert "the publisher exited unexpectedly" in errors
    assert processes_of(home) == []


EVENTS = [ShopEvent(f"id-{n}", "order", "key", "OrderPlaced", "{}") for n in range(3)]


def wrong(arrived: list[int], ids: set[int], confirmed: int = 9) -> list[str]:
    """Return the failed lines when id-0 and id-1 were committed and id-2 was rolled back."""
    tally = Tally()
    tally.committed(EVENTS[:2])
    tally.rolled_back(EVENTS[2:])
    arrivals = [
        Arrival(
            "outbox.event.order", 0, "key", "PaymentCaptured", f"id-{n}", f"{n}", {"currency": "EUR", "amount": 1}, 1
        )
        for n in arrived
    ]
    money = {"EUR": Decimal(len(set(arrived)))}
    expected = Expected(frozenset(f"id-{n}" for n in ids), money, LSN(confirmed), LSN(9))
    return [line.what for line in comparison.compare(tally, expected, arrivals) if line.right is False]


@pytest.mark.parametrize(
    ("arrived", "ids", "confirmed", "complaints"),
    [
        ([0, 1], {0, 1}, 9, []),
        ([0], {0, 1}, 9, ["events in Kafka, by distinct id", "keys out of order"]),
        ([0, 1, 1], {0, 1}, 9, ["duplicates in Kafka", "partitions out of commit order"]),
        ([1, 0], {0, 1}, 9, ["keys out of order", "partitions out of commit order"]),
        ([0, 1, 2], {0, 1}, 9, ["events in Kafka, by distinct id", "rolled-back rows in Kafka", "keys out of order"]),
        ([0, 1], {0}, 9, ["rows committed, counted by SQL"]),
        ([0, 1], {0, 1}, 8, ["slot confirmed up to"]),
    ],
)
def test_the_comparison_shows_errors(arrived: list[int], ids: set[int], confirmed: int, complaints: list[str]) -> None:
    assert wrong(arrived, ids, confirmed) == complaints


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.99, 10), (0.1, 1), (1, 10)])
def test_a_percentile_is_one_of_the_values(share: float, expected: int) -> None:
    assert comparison.percentile([7, 3, 1, 2, 10, 5, 4, 6, 9, 8], share) == expected

"""`python -m tests.torture`: torment the publisher, and judge it; exit code 1 on any violation."""

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE
from tests.torture import board
from tests.torture.campaign import Plan, run
from tests.torture.faults import FAULTS, NAMES, Fault
from tests.torture.sources import SOURCES
from tests.torture.stage import DEBIAN_15

GUARANTEES: Final = (AT_LEAST_ONCE, EXACTLY_ONCE)
FAULTS_RATE: Final = 25
CRASHES_RATE: Final = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one campaign; returns the exit code."""
    given = _parser().parse_args(arguments)
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # sessions end in the middle of transactions here
    console = Console()
    if given.postgres == 15 and not (DEBIAN_15 / "postgres").exists():
        console.print(f"PostgreSQL 15 is not installed in {DEBIAN_15}: nothing was run", highlight=False)
        return 1
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    crashes = given.campaign == "crashes"
    plan = Plan(
        0 if crashes else given.minutes * 60,
        seed,
        given.postgres,
        _chosen(given.only),
        given.once,
        given.rate or (CRASHES_RATE if crashes else FAULTS_RATE),
        given.intensity,
        given.guarantee,
        given.sequence,
        given.kills if crashes else 0,
        given.crashes if crashes else 0,
        given.source,
    )
    home = given.keep or Path(tempfile.mkdtemp(prefix="cdc-torture-"))
    with _Progress(console) as progress:
        outcomes = run(plan, home, progress)
    board.show(outcomes, console)
    if given.json:
        given.json.write_text(json.dumps(outcomes.summary(), indent=2) + "\n")
    if outcomes.passed:
        if not given.keep:
            shutil.rmtree(home, ignore_errors=True)
        return 0
    console.print(f"failed with seed {seed}; again: {_again(given, seed)}", soft_wrap=True, highlight=False)
    console.print(f"history, logs and records are in {home}", soft_wrap=True, highlight=False)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument(
        "--campaign",
        choices=("faults", "crashes"),
        default="faults",
        help="faults of all kinds for so many minutes, or so many crashes one after the other (default: %(default)s)",
    )
    parser.add_argument("--minutes", type=float, default=5, help="how long faults are injected (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=200, help="of the publisher, among crashes (default: %(default)s)")
    parser.add_argument("--crashes", type=int, default=30, help="of PostgreSQL, among crashes (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of load and faults (default: a random one)")
    parser.add_argument("--postgres", type=int, choices=(15, 18), default=18, help="version (default: %(default)s)")
    parser.add_argument("--guarantee", choices=GUARANTEES, default=GUARANTEES[0], help="[delivery] guarantee")
    parser.add_argument("--source", choices=SOURCES, default="slot", help="[postgres] source (default: %(default)s)")
    parser.add_argument("--sequence", action="store_true", help="[delivery] sequence: records are numbered")
    parser.add_argument("--only", help=f"kinds of faults, by commas; a prefix will do: {', '.join(NAMES)}")
    parser.add_argument("--once", action="store_true", help="every kind of fault at least once, however short the run")
    parser.add_argument("--rate", type=float, help=f"transactions a second (default: {FAULTS_RATE}, {CRASHES_RATE})")
    parser.add_argument(
        "--intensity", type=float, default=1, help="so many times the faults: fewer on a busy machine (default: 1)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave history, logs and records there")
    return parser


def _chosen(only: str | None) -> list[Fault]:
    if not only:
        return list(FAULTS)
    wanted = tuple(only.split(","))
    chosen = [fault for fault in FAULTS if fault.name.startswith(wanted)]
    if not chosen:
        sys.exit(f"no fault is called {only}; there are {', '.join(NAMES)}")
    return chosen


def _again(given: argparse.Namespace, seed: int) -> str:
    """The command that does the same once more, as far as servers can."""
    what = ("kills", "crashes") if given.campaign == "crashes" else ("minutes", "only")
    names = ("campaign", *what, "postgres", "source", "guarantee", "rate", "intensity")
    options = [(name, getattr(given, name)) for name in names if getattr(given, name)]
    words = [f"--{name} {value:g}" if isinstance(value, float) else f"--{name} {value}" for name, value in options]
    words += [f"--{name}" for name in ("once", "sequence") if getattr(given, name)]
    return " ".join(["python -m tests.torture", *words, f"--seed {seed}"])


class _Progress:
    """A line that changes on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("starting PostgreSQL and three brokers") if console.is_terminal else None

    def __enter__(self) -> Callable[[str], None]:
        if self._status:
            self._status.start()
        return self._say

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def _say(self, line: str) -> None:
        if self._status:
            self._status.update(line)
        else:
            self._console.print(line, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers and mounts must not stay
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)

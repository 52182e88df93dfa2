"""`check`: verify PostgreSQL, Kafka, the registry and contracts, and show fixes for each problem."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cdc.checks.finding import FAIL, PASS, WARN, Finding, Status
from cdc.checks.preflight import CheckOptions
from cdc.checks.preflight import check as run_checks
from cdc.cli.main import Invocation
from cdc.config.settings import require
from cdc.kafka import producer
from cdc.logs.format import hidden, plain

_STYLES: Final[dict[Status, str]] = {PASS: "green", WARN: "yellow", FAIL: "bold red"}
_PROGRAM: Final = "cdc-publisher "
_INDENT: Final = "      "

_EXAMPLES: Final = """\b
Examples:
  cdc-publisher --config shop.toml check
  cdc-publisher check --topic outbox.event.order     # while the outbox is empty
  cdc-publisher check --json | jq '.checks[] | select(.status != "pass")'
  cdc-publisher check && cdc-publisher start
  cdc-publisher --config fleet.toml check units      # all units of a fleet
"""


@click.command(epilog=_EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--topic", "topics", multiple=True, metavar="NAME", help="Also check this event topic; repeatable.")
@click.option(
    "--long-transaction",
    "long_seconds",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Warn about transactions open longer than this.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check(
    invocation: Invocation, folder: Path | None, topics: tuple[str, ...], long_seconds: float, as_json: bool
) -> int:
    """Check PostgreSQL, Kafka, the registry and the contracts without changing anything.

    Each line reports pass, warn or fail. Below a warning or failure are the SQL statements or commands that fix it, in
    the order to run them: SQL as a superuser in the database of [postgres] dsn, Kafka's scripts as an administrator. A
    publisher may be running.

    Event topics are those of the rows in the outbox table and those given with --topic.

    With FOLDER, which holds the units of a fleet, checks every unit, and whether the servers have room for all of them.

    Exit codes: 0 no failures, with or without warnings; 1 failures; 78 invalid configuration.
    """
    options = CheckOptions(topics, long_seconds)
    if folder is not None:
        return _check_units(invocation, folder, options, as_json=as_json)
    settings = require(invocation.settings())
    producer.validate(settings)
    with _progress() as doing:
        found = run_checks(settings, options, doing)
    found = [_as_called(one, invocation.program()) for one in found]
    if as_json:
        click.echo(json.dumps(_facts(found), indent=2))
    else:
        _print(found)
    return 1 if any(one.status == FAIL for one in found) else 0


def _check_units(invocation: Invocation, folder: Path, options: CheckOptions, *, as_json: bool) -> int:
    from cdc.fleet.check import check_units
    from cdc.fleet.folder import SUFFIX, Folder

    units = Folder(folder, *invocation.fleet()).units()
    everything: list[Finding] = []
    facts: dict[str, object] = {}
    with _progress() as doing:
        for unit, found in check_units(units, options, doing):
            program = invocation.program(folder / f"{unit}{SUFFIX}" if unit else None)
            lines = [_as_called(one, program) for one in found]
            everything += lines
            facts[unit] = _facts(lines)
            if not as_json:
                if unit:
                    click.echo(f"\nUnit {unit}\n")
                _print(lines)
    failed = any(one.status == FAIL for one in everything)
    if as_json:
        whole = {"ok": not failed, "counts": _counts(everything), "fleet": facts.pop(""), "units": facts}
        click.echo(json.dumps(whole, indent=2))
    return 1 if failed else 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show the current check on a terminal; yields the function that reports it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("checking") as status:
        yield lambda what: status.update(f"checking {what}")


def _as_called(one: Finding, program: str) -> Finding:
    fix = tuple(f"{program} {line.removeprefix(_PROGRAM)}" if line.startswith(_PROGRAM) else line for line in one.fix)
    return Finding(one.name, one.side, one.status, hidden(one.found), tuple(map(hidden, fix)), hidden(one.hint))


def _facts(found: list[Finding]) -> dict[str, object]:
    counts = _counts(found)
    checks = [{**one._asdict(), "fix": list(one.fix), "hint": one.hint or None} for one in found]
    return {"ok": not counts[FAIL], "counts": counts, "checks": checks}


def _counts(found: list[Finding]) -> dict[Status, int]:
    statuses: tuple[Status, ...] = (PASS, WARN, FAIL)
    return {status: sum(one.status == status for one in found) for status in statuses}


def _print(found: list[Finding]) -> None:
    """Print findings; on a terminal, text is wrapped but commands to copy are not."""
    console = Console(width=None if sys.stdout.isatty() else 250, highlight=False, markup=False, emoji=False)
    width = max(len(one.name) for one in found)
    side = ""
    for one in found:
        if one.side != side:
            side = one.side
            console.print(Text(f"\n{_TITLES[side]}" if one is not found[0] else _TITLES[side], style="bold"))
        line = Table.grid(padding=(0, 2))
        line.add_column(width=4)
        line.add_column(width=width)
        line.add_column(overflow="fold")
        line.add_row(Text(one.status, style=_STYLES[one.status]), one.name, plain(one.found))
        console.print(line)
        for statement in one.fix:
            console.print(Text(f"{_INDENT}{statement}", style="cyan"), soft_wrap=True)
        if one.hint and one.status != PASS:
            console.print(Padding(Text(f"hint: {plain(one.hint)}", style="dim"), (0, 0, 0, len(_INDENT)), expand=False))
    counts = _counts(found)
    summary = f"{counts[PASS]} pass, {counts[WARN]} warn, {counts[FAIL]} fail"
    console.print(Text(f"\n{summary}", style=_STYLES[FAIL if counts[FAIL] else WARN if counts[WARN] else PASS]))


_TITLES: Final = {"postgres": "PostgreSQL", "kafka": "Kafka", "contracts": "Contracts", "fleet": "Fleet"}

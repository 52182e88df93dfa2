"""`demo`: a shop's orders from transaction to decoded Kafka record, on servers of its own."""

import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console

from cdc.cli.examples import examples
from cdc.cli.local import HOME
from cdc.errors import CdcError, LocalStackError

if TYPE_CHECKING:
    from cdc.demo.stage import Stage

_HINTS = """
Servers and publisher go on running. Try:

  cdc-publisher demo --follow{home}          # in a second terminal: each event as it arrives
  {psql} {dsn} <<'SQL'
  insert into outbox (aggregatetype, aggregateid, type, payload) values ('order', 'order-1', 'OrderCancelled',
    '{{"order_id": "6f1f3bd0-5b0e-4f5c-9d3a-0a1b2c3d4e5f", "reason": "CUSTOMER",
      "cancelled_at": "2025-01-31T12:00:00Z"}}');
  SQL
  cdc-publisher --config {config} slot list
  less {log}
  cdc-publisher demo --stop{home}            # stops everything and removes the data
"""


@click.command(epilog=examples("cdc-publisher demo", "cdc-publisher demo --keep", "cdc-publisher demo --stop"))
@click.option("--keep", is_flag=True, help="Leave servers and publisher running, and say what to try.")
@click.option("--stop", is_flag=True, help="Only stop what --keep left running, and remove its data.")
@click.option("--follow", is_flag=True, help="Only show what arrives in the topics of a demo that was kept.")
@HOME
def demo(keep: bool, stop: bool, follow: bool, home: Path | None) -> int:
    """A shop's orders from transaction to decoded Kafka record.

    Starts PostgreSQL and Kafka of its own, lets concurrent writers place, pay and cancel orders, publishes what
    they commit, shows the decoded records, and then proves that the books balance. Takes half a minute and leaves
    nothing behind; the first time, Kafka is downloaded (45 MB).

    Exit codes: 0 the books balance; 1 they do not, or something failed.
    """
    stage = _stage(home)
    if stop:
        click.echo("stopped the demo" if stage.stop() else "no demo was running", err=True)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    # Names of customers have letters that an old terminal's encoding may lack.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console()
    try:
        if follow:
            _follow(stage, console)
        return _play(stage, console, keep, home)
    except KeyboardInterrupt:
        raise click.Abort from None
    except CdcError as error:
        for line in getattr(error, "__notes__", ()):
            click.echo(f"  {line}", err=True)
        raise


def _play(stage: "Stage", console: Console, keep: bool, home: Path | None) -> int:
    from cdc.demo.play import Play

    with stage:
        balanced = Play(stage, console).run()
        stage.kept = keep
        if keep:
            click.echo(_hints(stage, home))
    return 0 if balanced else 1


def _follow(stage: "Stage", console: Console) -> NoReturn:
    from cdc.demo.play import follow

    follow(stage, console)


def _hints(stage: "Stage", home: Path | None) -> str:
    from cdc.local import packages

    return _HINTS.format(
        home=f" --home {shlex.quote(str(home))}" if home else "",
        psql="psql" if shutil.which("psql") else packages.postgres() / "pginstall" / "bin" / "psql",
        dsn=shlex.quote(stage.stack.postgres.dsn),
        config=shlex.quote(str(stage.config)),
        log=shlex.quote(str(stage.log)),
    )


def _stage(home: Path | None) -> "Stage":
    try:
        from cdc.demo.stage import Stage
    except ImportError as missing:
        raise LocalStackError(
            f"the package {missing.name} is not installed", "pip install 'cdc-publisher[local]'"
        ) from missing
    return Stage(home)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    from cdc.demo.stage import deafen

    # Once: a second Ctrl-C must not cut short the stopping of what was started.
    deafen()
    raise KeyboardInterrupt

"""`demo`: publish the orders of a sample shop on local servers."""

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
from cdc.config.settings import Value
from cdc.errors import CdcError, LocalStackError

if TYPE_CHECKING:
    from cdc.demo.environment import Environment

_HINTS = """
The servers and the publisher keep running. Try:

  cdc-publisher demo --follow{home}          # in a second terminal: show events as they arrive
  {psql} {dsn} <<'SQL'
  insert into outbox (aggregatetype, aggregateid, type, payload) values ('order', 'order-1', 'OrderCancelled',
    '{{"order_id": "6f1f3bd0-5b0e-4f5c-9d3a-0a1b2c3d4e5f", "reason": "CUSTOMER",
      "cancelled_at": "2025-01-31T12:00:00Z"}}');
  SQL
  cdc-publisher --config {config} slot list
  less {log}
  cdc-publisher demo --stop{home}            # stop everything and remove the data
"""


@click.command(epilog=examples("cdc-publisher demo", "cdc-publisher demo --value json", "cdc-publisher demo --keep"))
@click.option("--keep", is_flag=True, help="Keep servers and publisher running, and suggest commands to try.")
@click.option("--stop", is_flag=True, help="Stop a demo started with --keep, and remove its data.")
@click.option("--follow", is_flag=True, help="Show new events of a demo started with --keep.")
@click.option(
    "--value",
    type=click.Choice(["avro", "json", "text"]),
    default="avro",
    show_default=True,
    help="Kind of values to publish: [record] value.",
)
@HOME
def demo(keep: bool, stop: bool, follow: bool, value: Value, home: Path | None) -> int:
    """Run a demo: publish the orders of a sample shop and verify the result.

    Starts local PostgreSQL and Kafka servers and concurrent writers that place, pay and cancel orders, publishes the
    events, shows the decoded records and compares them with the committed rows. Takes half a minute and removes its
    data at the end; the first run downloads Kafka (45 MB).

    Exit codes: 0 all events were published correctly; 1 a comparison or the demo failed.
    """
    environment = _environment(home, value)
    if stop:
        click.echo("stopped the demo" if environment.stop() else "no demo was running", err=True)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    # Customers' names have letters that the terminal's encoding may lack.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console()
    try:
        if follow:
            _follow(environment, console)
        return _run(environment, console, keep, home)
    except KeyboardInterrupt:
        raise click.Abort from None
    except CdcError as error:
        for line in getattr(error, "__notes__", ()):
            click.echo(f"  {line}", err=True)
        raise


def _run(environment: "Environment", console: Console, keep: bool, home: Path | None) -> int:
    from cdc.demo.run import Demo

    with environment:
        passed = Demo(environment, console).run()
        environment.kept = keep
        if keep:
            click.echo(_hints(environment, home))
    return 0 if passed else 1


def _follow(environment: "Environment", console: Console) -> NoReturn:
    from cdc.demo.run import follow

    follow(environment, console)


def _hints(environment: "Environment", home: Path | None) -> str:
    from cdc.local import packages

    return _HINTS.format(
        home=f" --home {shlex.quote(str(home))}" if home else "",
        psql="psql" if shutil.which("psql") else packages.postgres() / "pginstall" / "bin" / "psql",
        dsn=shlex.quote(environment.stack.postgres.dsn),
        config=shlex.quote(str(environment.config)),
        log=shlex.quote(str(environment.log)),
    )


def _environment(home: Path | None, value: Value) -> "Environment":
    try:
        from cdc.demo.environment import Environment
    except ImportError as missing:
        raise LocalStackError(
            f"the package {missing.name} is not installed", "pip install 'cdc-publisher[local]'"
        ) from missing
    return Environment(home, value)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    from cdc.demo.environment import ignore_signals

    # Only once: a second Ctrl-C must not interrupt the shutdown of servers.
    ignore_signals()
    raise KeyboardInterrupt

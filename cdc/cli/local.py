"""`cdc-publisher local`: real PostgreSQL and Kafka on this machine."""

import json
import shlex
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cdc.cli.examples import examples
from cdc.errors import LocalStackError

if TYPE_CHECKING:
    from cdc.local.stack import Addresses, Stack

HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the servers' files.  [default: in the user's cache folder]",
)


@click.group()
def local() -> None:
    """Real PostgreSQL and Kafka on this machine, without containers.

    They listen on 127.0.0.1 only, need no root, and keep their ports and data until `down --purge`.
    """


@local.command(
    epilog=examples(
        "cdc-publisher local up",
        "cdc-publisher local up --brokers 3",
        'export CDC_POSTGRES__DSN="$(cdc-publisher local up --json | jq -r .postgres.dsn)"',
    )
)
@click.option("--brokers", type=click.Choice(["1", "3"]), help="Kafka brokers.  [default: as before, at first 1]")
@HOME
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def up(brokers: str | None, home: Path | None, as_json: bool) -> None:
    """Start PostgreSQL and Kafka, or say where they run.

    The first time, Kafka is downloaded (45 MB).
    """
    stack = _stack(home, int(brokers) if brokers else None)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        addresses = stack.up(Console(stderr=True))
    except KeyboardInterrupt:
        raise click.Abort from None
    if as_json:
        click.echo(json.dumps(_facts(stack, addresses)))
    else:
        _show(stack, addresses)


@local.command(epilog=examples("cdc-publisher local down", "cdc-publisher local down --purge"))
@click.option("--purge", is_flag=True, help="Also remove the data (not the downloaded programs).")
@HOME
def down(purge: bool, home: Path | None) -> None:
    """Stop PostgreSQL and Kafka; the data stays unless --purge is given."""
    stack = _stack(home, None)
    stopped = stack.down(purge=purge)
    click.echo("stopped PostgreSQL and Kafka" if stopped else "nothing was running", err=True)
    if purge:
        click.echo(f"removed the data in {stack.home}", err=True)


def _stack(home: Path | None, brokers: int | None) -> "Stack":
    try:
        from cdc.local.stack import Stack
    except ImportError as missing:
        raise LocalStackError(
            f"the package {missing.name} is not installed", "pip install 'cdc-publisher[local]'"
        ) from missing
    return Stack(home, brokers=brokers)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    # Once: a second Ctrl-C must not cut short the stopping of what was started.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _facts(stack: "Stack", addresses: "Addresses") -> dict[str, object]:
    from cdc.local.packages import KAFKA_VERSION

    return {
        "postgres": {
            "dsn": addresses.postgres,
            "version": stack.postgres.version,
            "log": str(stack.postgres.log),
        },
        "kafka": {
            "bootstrap_servers": addresses.kafka,
            "version": KAFKA_VERSION,
            "brokers": len(stack.brokers),
            "logs": [str(broker.log) for broker in stack.brokers],
        },
        "home": str(stack.home),
    }


def _show(stack: "Stack", addresses: "Addresses") -> None:
    from cdc.local.packages import KAFKA_VERSION

    for title, value in (
        (f"PostgreSQL {stack.postgres.version}", addresses.postgres),
        (f"Kafka {KAFKA_VERSION}", addresses.kafka),
        ("files and logs", stack.home),
    ):
        click.echo(f"{title:<16} {value}")
    click.echo("\nnext:")
    click.echo(f"  export CDC_POSTGRES__DSN={addresses.postgres}")
    click.echo(f"  export CDC_KAFKA__BOOTSTRAP_SERVERS={addresses.kafka}")
    click.echo("  cdc-publisher outbox init")
    click.echo(f"  {_psql()} {addresses.postgres}")


def _psql() -> str:
    """The program, or where the package of PostgreSQL has it."""
    from cdc.local.packages import postgres

    return "psql" if shutil.which("psql") else shlex.quote(str(postgres() / "pginstall" / "bin" / "psql"))

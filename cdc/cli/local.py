"""`local`: run PostgreSQL and Kafka on this machine."""

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
    help="Folder for the servers' files.  [default: in the user's cache directory]",
)


@click.group()
def local() -> None:
    """Run PostgreSQL and Kafka on this machine, without containers.

    The servers listen on 127.0.0.1 only, do not need root, and keep their ports and data until `down --purge`.
    """


@local.command(
    epilog=examples(
        "cdc-publisher local up",
        "cdc-publisher local up --brokers 3",
        'export CDC_POSTGRES__DSN="$(cdc-publisher local up --json | jq -r .postgres.dsn)"',
    )
)
@click.option("--brokers", type=click.Choice(["1", "3"]), help="Number of Kafka brokers.  [default: as before, or 1]")
@HOME
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def up(brokers: str | None, home: Path | None, as_json: bool) -> None:
    """Start PostgreSQL and Kafka unless they run already, and print their addresses.

    The first start downloads Kafka (45 MB).
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
@click.option("--purge", is_flag=True, help="Also remove the data, but not the downloaded programs.")
@HOME
def down(purge: bool, home: Path | None) -> None:
    """Stop PostgreSQL and Kafka, and keep the data unless --purge is given."""
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
    # Only once: a second Ctrl-C must not interrupt the shutdown of servers.
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
    """Return `psql`, or its path in the PostgreSQL package if it is not on PATH."""
    from cdc.local.packages import postgres

    return "psql" if shutil.which("psql") else shlex.quote(str(postgres() / "pginstall" / "bin" / "psql"))

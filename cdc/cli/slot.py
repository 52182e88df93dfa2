"""`slot`: replication slots, created, listed, dropped and advanced by people."""

import json
import sys
from dataclasses import asdict

import click
from rich import box
from rich.console import Console
from rich.table import Table

from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import LsnType
from cdc.config.settings import Settings, require
from cdc.delivery.positions import EXACTLY_ONCE, SlotRecord, differences, latest
from cdc.errors import CdcError
from cdc.kafka import positions
from cdc.lsn import LSN
from cdc.postgres import catalog, slots
from cdc.postgres.connection import connect
from cdc.quantities import size

_KAFKA_SECONDS = 10.0

_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_name = click.argument("name", required=False)


def _settings(invocation: Invocation) -> Settings:
    return require(invocation.settings(), kafka=False)


@click.group()
def slot() -> None:
    """Create, list, drop or advance replication slots.

    NAME is [postgres] slot of the settings unless given.
    """


@slot.command(epilog=examples("cdc-publisher slot create", "cdc-publisher slot create orders --failover"))
@_name
@click.option("--failover", is_flag=True, help="Keep it on standbys too, for PostgreSQL 17 or newer.")
@click.pass_obj
def create(invocation: Invocation, name: str | None, failover: bool) -> None:
    """Create a logical slot; from then on PostgreSQL keeps what it has not confirmed.

    Events committed earlier are not in it. Create the publication first: `outbox init`.
    """
    settings = _settings(invocation)
    name = name or settings.postgres.slot
    with connect(settings.postgres.dsn) as connection:
        catalog.server(connection)
        defect = catalog.publication_defect(connection, settings.postgres.publication, settings.outbox.qualified_name)
        if defect:
            click.echo(f"cdc-publisher: warning: {defect.error()}", err=True)
        lsn = slots.create(connection, name, failover=failover)
        mark = SlotRecord(
            slots.system_identifier(connection),
            slots.timeline(connection),
            name,
            lsn,
            {},
            {},
            guarantee=settings.delivery.guarantee,
            # Nothing was sent from it; a publisher of the other guarantee takes it over properly.
            caught_up=settings.delivery.guarantee == EXACTLY_ONCE,
        )
    click.echo(f"created slot {name}, which starts at {lsn}")
    _remember(settings, mark)


def _remember(settings: Settings, mark: SlotRecord) -> None:
    """Tell Kafka where the slot begins, unless it knows of one of this name: then the publisher is to ask."""
    if not settings.kafka:
        return
    try:
        positions.ensure(settings)
        known = latest(positions.values(settings, mark.key, _KAFKA_SECONDS))
        if known is None:
            positions.write(settings, mark.key, mark.encode(), _KAFKA_SECONDS)
        elif differences(mark, known):
            click.echo(
                f"cdc-publisher: warning: there was a slot {mark.slot} before, which stood at {known.confirmed}: what"
                " was committed after that is not in this one; the publisher will ask for --accept-changes",
                err=True,
            )
    except (CdcError, ValueError) as error:
        click.echo(f"cdc-publisher: warning: Kafka was not told where the slot begins: {error}", err=True)


@slot.command("list", epilog=examples("cdc-publisher slot list", "cdc-publisher slot list --json"))
@click.option("--json", "as_json", is_flag=True, help="A JSON array instead of a table.")
@click.pass_obj
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the logical slots of the server."""
    settings = _settings(invocation)
    with connect(settings.postgres.dsn) as connection:
        found = slots.find(connection)
    if as_json:
        click.echo(json.dumps([{**asdict(s), "confirmed": s.confirmed and str(s.confirmed)} for s in found], indent=2))
        return
    if not found:
        click.echo("no logical slots; create one with: cdc-publisher slot create")
        return
    names = ("slot", "database", "read by", "confirmed", "lag", "retained", "WAL", "failover")
    table = Table(*names, box=box.SIMPLE_HEAD)
    for s in found:
        table.add_row(
            s.name,
            s.database,
            f"pid {s.active_pid}" if s.active_pid else "nobody",
            str(s.confirmed or "-"),
            size(s.lag_bytes),
            size(s.retained_bytes),
            s.wal_status or "-",
            "a copy" if s.synced else "yes" if s.failover else "-",
        )
    # Into a pipe or a file there is no width to keep to.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@slot.command(epilog=examples("cdc-publisher slot drop", "cdc-publisher slot drop orders --yes"))
@_name
@_yes
@click.pass_obj
def drop(invocation: Invocation, name: str | None, yes: bool) -> None:
    """Drop a slot that nobody reads. What it has not confirmed will never be published from it."""
    settings = _settings(invocation)
    name = name or settings.postgres.slot
    with connect(settings.postgres.dsn) as connection:
        found = slots.inactive(connection, name)
        _ask(yes, f"Drop slot {name}, {size(found.lag_bytes)} of WAL behind? What it has not confirmed is lost to it.")
        key = f"{slots.system_identifier(connection)}/{name}"
        slots.drop(connection, name)
    click.echo(f"dropped slot {name}")
    _forget(settings, key)


@slot.command(epilog=examples("cdc-publisher slot advance", "cdc-publisher slot advance --to 16/B374D848"))
@_name
@click.option("--to", "target", type=LsnType(), help="Where to, as an LSN.  [default: the end of the WAL]")
@_yes
@click.pass_obj
def advance(invocation: Invocation, name: str | None, target: LSN | None, yes: bool) -> None:
    """Move a slot that nobody reads. Events between are never published from it."""
    settings = _settings(invocation)
    name = name or settings.postgres.slot
    with connect(settings.postgres.dsn) as connection:
        found = slots.inactive(connection, name)
        to = target if target is not None else slots.wal_end(connection)
        skipped = size(to - (found.confirmed or to))
        _ask(yes, f"Advance slot {name} from {found.confirmed} to {to}? Events in these {skipped} of WAL are skipped.")
        key = f"{slots.system_identifier(connection)}/{name}"
        end = slots.advance(connection, name, to)
    click.echo(f"slot {name} stands at {end}")
    _forget(settings, key)


def _forget(settings: Settings, key: str) -> None:
    """Let the publisher know that the slot was moved on purpose: what Kafka holds about it is not true any more."""
    if not settings.kafka:
        return
    try:
        positions.forget(settings, key)
    except CdcError as error:
        click.echo(
            f"cdc-publisher: warning: {error}; so the publisher will take the slot for one that a stranger moved:"
            " start it with --accept-changes",
            err=True,
        )


def _ask(yes: bool, question: str) -> None:
    if not yes:
        click.confirm(question, abort=True)

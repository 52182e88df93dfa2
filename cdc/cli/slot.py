"""`slot`: create, list, drop and advance replication slots."""

import json
import sys
from dataclasses import asdict, replace

import click
from rich import box
from rich.console import Console
from rich.table import Table

from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import LsnType, Moment
from cdc.config.settings import Settings, require, require_slot
from cdc.delivery.positions import EXACTLY_ONCE, Memory, SlotRecord, differences
from cdc.errors import CdcError, PostgresError
from cdc.kafka import positions
from cdc.lsn import LSN
from cdc.postgres import catalog, relay_facts, slots
from cdc.postgres.connection import LONG_SECONDS, connect
from cdc.postgres.renamed import located
from cdc.quantities import size
from cdc.replication.horizon import Horizon, remembered

_KAFKA_SECONDS = 10.0

_yes = click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
_name = click.argument("name", required=False)


def _settings(invocation: Invocation) -> Settings:
    instead = "rows that are there are sent by: cdc-publisher outbox init --polling --rows send"
    return require(require_slot(invocation.settings(), "slot", instead), kafka=False)


@click.group()
def slot() -> None:
    """Create, list, drop or advance replication slots.

    NAME defaults to the setting [postgres] slot.
    """


@slot.command(
    epilog=examples(
        "cdc-publisher slot create",
        "cdc-publisher slot create orders --failover",
        "cdc-publisher slot create --backfill --since 30d --rate 5000",
        "cdc-publisher --set postgres.source=slot slot create --from-polling",
    )
)
@_name
@click.option("--failover", is_flag=True, help="Synchronize the slot to standbys; needs PostgreSQL 17 or later.")
@click.option("--backfill", is_flag=True, help="First publish the rows that the table has and the topics have not.")
@click.option(
    "--since", type=Moment(), metavar="TIME", help="With --backfill: only rows since TIME; UTC, or an age such as 12h."
)
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="With --backfill: at most N events a second."
)
@click.option("--yes", is_flag=True, help="With --backfill: skip the confirmation prompt.")
@click.option(
    "--from-polling", is_flag=True, help="Take over the outbox from a relay that publishes it without a slot; waits."
)
@click.pass_obj
def create(
    invocation: Invocation,
    name: str | None,
    failover: bool,
    backfill: bool,
    since: int | None,
    rate: float | None,
    yes: bool,
    from_polling: bool,
) -> int:
    """Create a logical replication slot.

    From then on PostgreSQL retains the WAL that the slot has not confirmed. Events committed earlier are not published
    from it. Create the publication first, with `outbox init`.

    PostgreSQL waits for the end of all transactions that are open now; the command names those that it waits for.

    With --backfill, the rows of the table are published first: those whose id no topic has, in the order of their
    commits. Writers continue meanwhile. The command can be interrupted and called again.

    With --from-polling, the relay of the same name hands the outbox over: the command waits until the relay has
    confirmed everything that the slot does not bring, and until you have stopped it. It can be called again too.
    """
    if from_polling and backfill:
        raise click.UsageError("--from-polling excludes --backfill")
    if (since is not None or rate is not None or yes) and not backfill:
        raise click.UsageError("--since, --rate and --yes need --backfill")
    settings = _settings(invocation)
    name = name or settings.postgres.slot
    if from_polling:
        return _from_polling(settings, name, failover=failover)
    if backfill:
        return _backfill(settings, name, since=since, rate=rate, failover=failover, yes=yes)
    # Only this command and `drop` need the topics of events.
    from cdc.recovery import creation

    # Creating a slot waits for the end of all open transactions, which may take as long as it likes.
    with connect(settings.postgres.dsn, lock_seconds=0, statement_seconds=0) as connection:
        catalog.server(connection)
        settings = located(connection, settings)
        if relay_facts.exists(connection, settings):
            raise PostgresError(
                f"relay {settings.postgres.slot!r} publishes the outbox, and a slot beside it would publish it again",
                hint="run: cdc-publisher slot create --from-polling",
            )
        defect = catalog.published_defect(connection, settings)
        if defect:
            click.echo(f"cdc-publisher: warning: {defect.error()}", err=True)
        system_identifier = slots.system_identifier(connection)
        known = _known(settings, f"{system_identifier}/{name}")
        slots.check_new(connection, name, failover=failover)
        horizons = creation.known_horizons(connection, settings, known.horizons if known else ())
        if known:
            creation.check_published(connection, settings, name, known, horizons)
        lsn, horizon = creation.create(connection, settings, name, failover=failover)
        mark = SlotRecord(
            system_identifier,
            horizon.timeline,
            name,
            lsn,
            {},
            {},
            guarantee=settings.delivery.guarantee,
            # Nothing was sent from the slot yet, so a publisher with either delivery guarantee can use it.
            caught_up=settings.delivery.guarantee == EXACTLY_ONCE,
            horizons=remembered((*horizons, horizon)),
        )
    click.echo(f"created slot {name}, starting at {lsn}")
    if known:
        _remember(settings, mark, known.record)
    return 0


def _from_polling(settings: Settings, name: str, *, failover: bool) -> int:
    """Create the slot that follows a relay."""
    from cdc.polling_setup.to_slot import Takeover

    postgres = settings.postgres.model_copy(update={"slot": name})
    settings = require(settings.model_copy(update={"postgres": postgres}))
    with connect(settings.postgres.dsn, lock_seconds=0, statement_seconds=0) as connection:
        Takeover(connection, settings, click.echo).run(failover=failover)
    return 0


def _backfill(
    settings: Settings, name: str, *, since: int | None, rate: float | None, failover: bool, yes: bool
) -> int:
    """Publish the rows of the table, and create the slot from which the publisher continues."""
    # Only this needs the contract compiler.
    from cdc.cli.recover import run
    from cdc.recovery.state import RecoveryOptions

    postgres = settings.postgres.model_copy(update={"slot": name})
    options = RecoveryOptions(since=since, rate=rate, failover=failover, backfill=True)
    return run(
        require(settings.model_copy(update={"postgres": postgres})), options, dry_run=False, yes=yes, as_json=False
    )


def _known(settings: Settings, key: str) -> Memory | None:
    """Return what Kafka has of an earlier slot of the name; None when it cannot be read, or is not configured."""
    if not settings.kafka:
        return None
    try:
        positions.ensure(settings)
        return positions.remembered(settings, key, _KAFKA_SECONDS)
    except CdcError as error:
        _not_recorded(error)
        return None


def _not_recorded(error: CdcError) -> None:
    click.echo(f"cdc-publisher: warning: the start of the slot was not recorded in Kafka: {error}", err=True)


def _remember(settings: Settings, mark: SlotRecord, known: SlotRecord | None) -> None:
    """Record the start of the slot in Kafka, unless Kafka has a record of an earlier slot of the same name.

    In that case the publisher will ask for --accept-changes.
    """
    if known is None:
        try:
            positions.write(settings, mark.key, mark.encode(), _KAFKA_SECONDS)
        except CdcError as error:
            _not_recorded(error)
    elif differences(mark, known):
        click.echo(
            f"cdc-publisher: warning: an earlier slot {mark.slot} had confirmed {known.confirmed}; this slot may"
            " lack events committed after that. The publisher will ask for --accept-changes",
            err=True,
        )


@slot.command("list", epilog=examples("cdc-publisher slot list", "cdc-publisher slot list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the logical replication slots of the server."""
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
            f"pid {s.active_pid}" if s.active_pid else "-",
            str(s.confirmed or "-"),
            size(s.lag_bytes),
            size(s.retained_bytes),
            s.wal_status or "-",
            "synced" if s.synced else "yes" if s.failover else "-",
        )
    # A pipe or file has no width.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@slot.command(epilog=examples("cdc-publisher slot drop", "cdc-publisher slot drop orders --yes"))
@_name
@_yes
@click.pass_obj
def drop(invocation: Invocation, name: str | None, yes: bool) -> None:
    """Drop an inactive slot.

    PostgreSQL cannot send the events that it has not confirmed any more: `recover` publishes them from the table.
    """
    # Only this command and `create` need the topics of events.
    from cdc.recovery import creation

    settings = _settings(invocation)
    name = name or settings.postgres.slot
    with connect(settings.postgres.dsn) as connection:
        found = slots.inactive(connection, name)
        _confirm(yes, f"Drop slot {name}? Its {size(found.lag_bytes)} of unconfirmed WAL will not be published.")
        key = f"{slots.system_identifier(connection)}/{name}"
        settings = located(connection, settings)
        horizon = creation.last_horizon(connection, settings, name) if settings.kafka else None
        slots.drop(connection, name)
    click.echo(f"dropped slot {name}")
    _forget(settings, key, topics=True, horizon=horizon)


@slot.command(epilog=examples("cdc-publisher slot advance", "cdc-publisher slot advance --to 16/B374D848"))
@_name
@click.option("--to", "target", type=LsnType(), help="Advance to this LSN.  [default: the end of the WAL]")
@_yes
@click.pass_obj
def advance(invocation: Invocation, name: str | None, target: LSN | None, yes: bool) -> None:
    """Advance an inactive slot. Events in between will never be published."""
    settings = _settings(invocation)
    name = name or settings.postgres.slot
    with connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection:
        found = slots.inactive(connection, name)
        to = target if target is not None else slots.wal_end(connection)
        skipped = size(to - (found.confirmed or to))
        _confirm(yes, f"Advance slot {name} from {found.confirmed} to {to}, skipping events in {skipped} of WAL?")
        key = f"{slots.system_identifier(connection)}/{name}"
        end = slots.advance(connection, name, to)
    click.echo(f"advanced slot {name} to {end}")
    _forget(settings, key, topics=False)


def _forget(settings: Settings, key: str, *, topics: bool, horizon: Horizon | None = None) -> None:
    """Delete the record of the slot in Kafka, so that the publisher accepts the deliberate change.

    With `topics` those of its topics too; then the slot was dropped, and its horizons stay: they say which rows it has
    brought. `horizon` is one that it had confirmed when it was dropped.
    """
    if not settings.kafka:
        return
    try:
        record = positions.remembered(settings, key, _KAFKA_SECONDS).record if topics else None
        positions.forget(settings, key, topics=topics)
        if record:
            kept = remembered((*record.horizons, *([horizon] if horizon else [])))
            record = replace(record, horizons=kept, dropped=True)
            positions.write(settings, key, record.encode(), _KAFKA_SECONDS)
    except CdcError as error:
        click.echo(
            f"cdc-publisher: warning: {error}; the record of the slot in Kafka is outdated, so start the publisher"
            " with --accept-changes",
            err=True,
        )


def _confirm(yes: bool, question: str) -> None:
    if not yes:
        click.confirm(question, abort=True)

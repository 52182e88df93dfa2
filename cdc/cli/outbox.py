"""`outbox`: create the outbox table, its publication and the publisher's own topics, and purge published rows."""

from pathlib import Path
from typing import Literal

import click

from cdc.cli import split
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import Moment
from cdc.cli.purge import purge
from cdc.config.settings import Settings, require
from cdc.errors import ConfigError
from cdc.kafka.cluster import Cluster
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.polling_setup.run import Options, Setup
from cdc.postgres import defects, message_function, outbox_table
from cdc.postgres.connection import LONG_SECONDS, Conn, connect

_REACH_SECONDS = 10.0
_NO_KAFKA = 'no [kafka] "bootstrap.servers": created no topics; set it and run outbox init again'


@click.group()
def outbox() -> None:
    """Create the outbox table and its publication, or delete published rows."""


outbox.add_command(purge)


@outbox.command(
    epilog=examples(
        "cdc-publisher outbox init",
        "cdc-publisher outbox init --print | psql shop",
        "cdc-publisher outbox init --order",
        "cdc-publisher outbox init --messages --writers shop_app",
        "cdc-publisher outbox init --polling",
        "cdc-publisher outbox init --polling --rows published --role relay",
        "cdc-publisher outbox init --split 4 --write units",
    )
)
@click.option("--print", "print_only", is_flag=True, help="Print the SQL statements without executing them.")
@click.option("--order", is_flag=True, help="Add the column cdc_seq to an existing table, without rewriting it.")
@click.option("--messages", is_flag=True, help="Create the function outbox_emit, which writes events as messages.")
@click.option(
    "--writers",
    multiple=True,
    metavar="ROLE",
    help="With --messages: let ROLE call outbox_emit; with --split: let it insert; repeatable.",
)
@click.option(
    "--revoke",
    is_flag=True,
    help="With --messages: revoke the right to write messages without outbox_emit from PUBLIC.",
)
@click.option("--polling", is_flag=True, help='Prepare the table for [postgres] source = "polling", without a slot.')
@click.option(
    "--rows",
    type=click.Choice(["published", "send"]),
    help="With --polling: whether the rows that are there count as published, or are to be sent.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE",
    help="With --polling: grant ROLE what the relay needs; repeatable.",
)
@click.option("--adopt", is_flag=True, help="With --polling: make strays, which no batch will have, rows to be sent.")
@click.option(
    "--reset", is_flag=True, help="With --polling: give the relay a new id after a restore; send what is not confirmed."
)
@click.option(
    "--since", type=Moment(), metavar="TIME", help="With --reset: send the rows since TIME; UTC, or an age such as 12h."
)
@click.option(
    "--split",
    "parts",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Create the table in N parts, by the hash of the key, each with a publication for a publisher of its own.",
)
@click.option(
    "--write",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="With --split: write the settings file of each part's publisher into FOLDER.",
)
@click.pass_obj
def init(
    invocation: Invocation,
    print_only: bool,
    order: bool,
    messages: bool,
    writers: tuple[str, ...],
    revoke: bool,
    polling: bool,
    rows: Literal["published", "send"] | None,
    roles: tuple[str, ...],
    adopt: bool,
    reset: bool,
    since: int | None,
    parts: int | None,
    folder: Path | None,
) -> int:
    """Create the outbox table, the publication and the publisher's own topics, if missing.

    Running it again changes nothing. An existing table or publication with a different definition is an error. Create
    the replication slot with `slot create`; event topics are created by their owners or with `[topics] create`.

    A new table has the column cdc_seq, which numbers its rows and is no part of an event. If the slot is ever lost,
    missing events are published in its order. `--order` adds it to an existing table: rows that are there get the
    number 0, and come before all others, in the order of their transactions.

    `--messages` prepares events that are in the WAL only (`[outbox] messages`): it creates the function outbox_emit,
    and the table only where `[outbox] table` names one that is missing. Any role may write messages by
    pg_logical_emit_message, and so invent events: the command prints what prevents that, or does it with `--revoke`,
    for which it needs a superuser.

    `--polling` prepares a table for publishing without a slot: the columns cdc_tx and cdc_seq, which a trigger fills,
    an index on each, a unique id, and the tables cdc_relay and cdc_ticks. A table that has rows needs `--rows`, unless
    a slot of the name in `[postgres] slot` publishes it: then this is a move, and the slot continues until the relay
    takes over.

    `--split` is for an outbox that one publisher cannot keep up with: each part has a table, a publication, a slot and
    a settings file of the name NAME_N_i. Where the table exists, nothing is created: the command prints the steps that
    split it while it is in use, and exits with 1 (with 0 after `--print`).
    """
    if (revoke and not messages) or (writers and not (messages or parts)):
        raise click.UsageError("--revoke needs --messages, and --writers needs it or --split")
    if parts and (order or messages):
        raise click.UsageError("--split excludes --order and --messages")
    if folder and not parts:
        raise click.UsageError("--write needs --split")
    if (rows or roles or adopt or reset) and not polling:
        raise click.UsageError("--rows, --role, --adopt and --reset need --polling")
    if since is not None and not reset:
        raise click.UsageError("--since needs --reset")
    if polling and (order or messages or parts):
        raise click.UsageError("--polling excludes --order, --messages and --split")
    settings = invocation.settings()
    if polling or settings.postgres.polls:
        if order or messages or parts:
            raise ConfigError("[postgres] source is polling", hint="run outbox init --polling")
        _init_polling(settings, print_only, Options(rows=rows, adopt=adopt, reset=reset, since=since, roles=roles))
        return 0
    if messages and settings.outbox.messages is None:
        raise ConfigError("[outbox] messages is not set", hint="set it to the prefix of the messages that are events")
    if not (messages or settings.outbox.table):
        raise ConfigError('[outbox] table is ""', hint="run outbox init --messages, or name a table")
    if parts:
        require(settings, kafka=False)
        kafka = None if print_only else _kafka(settings)
        done = split.init(invocation, settings, parts, folder=folder, writers=writers, print_only=print_only)
        if done and not print_only:
            _create_topics(kafka, settings)
        return 0 if done else 1
    if print_only and not (order or messages):
        statements = [*outbox_table.create_table(settings), outbox_table.create_publication(settings)]
        click.echo("\n\n".join(statements))
        return 0
    require(settings, kafka=False)
    kafka = None if print_only else _kafka(settings)
    with connect(settings.postgres.dsn) as connection:
        statements = _statements(connection, settings, order=order, messages=messages)
        statements += [message_function.grant(settings, defects.name(role)) for role in writers]
        rights = message_function.revocations(connection) if messages else []
        if print_only:
            click.echo("\n\n".join(statements + rights))
            return 0
        connection.execute("reset search_path")  # event triggers may depend on it
        outbox_table.execute(connection, statements + (rights if revoke else []))
        if revoke:
            message_function.check_revoked(connection)
    for statement in statements:
        if statement.startswith("CREATE OR REPLACE FUNCTION"):
            click.echo(f"created function {message_function.name(settings).replace(chr(34), '')}")
        if not statement.startswith(("CREATE TABLE", "CREATE PUBLICATION")):
            continue
        click.echo(f"created {' '.join(statement.split()[1:3]).lower().replace(chr(34), '')}")
    if any(statement.startswith("ALTER TABLE") for statement in statements):
        click.echo(f"added column {SEQUENCE_COLUMN} to table {settings.outbox.table}")
    if messages:
        _show_rights(settings, rights, granted=bool(writers), revoked=revoke)
    if not statements and messages:
        click.echo(f"function {message_function.NAME} and publication {settings.postgres.publication} exist already")
    elif not statements:
        click.echo(f"table {settings.outbox.table} and publication {settings.postgres.publication} exist already")
    _create_topics(kafka, settings)
    return 0


def _create_topics(kafka: Cluster | None, settings: Settings) -> None:
    if kafka is None:
        click.echo(_NO_KAFKA, err=True)
        return
    _ensure_topics(kafka, settings)


def _init_polling(settings: Settings, print_only: bool, options: Options) -> None:
    require(settings, kafka=False)
    kafka = None if print_only else _kafka(settings)
    if kafka is not None:  # the record of the relay is written there
        _ensure_topics(kafka, settings)
    with connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection:
        setup = Setup(connection, settings, options, click.echo)
        if print_only:
            click.echo("\n\n".join(setup.statements()) or "-- nothing is missing")
            return
        setup.run()
    if kafka is None:
        click.echo(_NO_KAFKA, err=True)


def _ensure_topics(kafka: Cluster, settings: Settings) -> None:
    for topic, created in kafka.ensure_own_topics(settings.topics).items():
        click.echo(f"created topic {topic}" if created else f"topic {topic} exists already")


def _statements(connection: Conn, settings: Settings, *, order: bool, messages: bool) -> list[str]:
    statements = outbox_table.missing(connection, settings, numbered=order) if order or not messages else []
    if not messages:
        return statements
    return statements + [
        each for each in outbox_table.missing_for_messages(connection, settings) if each not in statements
    ]


def _show_rights(settings: Settings, rights: list[str], *, granted: bool, revoked: bool) -> None:
    """Show what is left to do so that writers, and they alone, can write events."""
    if not granted:
        click.echo(f"let the role of each writer call it: {message_function.grant(settings, '<role>')}")
    if rights and revoked:
        click.echo("revoked the right to pg_logical_emit_message from PUBLIC")
    elif rights:
        click.echo("any role may invent events; as a superuser, run (or use --revoke):")
        for statement in rights:
            click.echo(f"  {statement}")


def _kafka(settings: Settings) -> Cluster | None:
    """Return the cluster if Kafka is configured. Raises KafkaUnavailable, before anything is created."""
    if not settings.kafka.get("bootstrap.servers"):
        return None
    cluster = Cluster(settings.kafka)
    cluster.reach(_REACH_SECONDS)
    return cluster

"""`outbox`: create the outbox table, its publication and the publisher's own topics, and purge published rows."""

import click

from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.purge import purge
from cdc.config.settings import Settings, require
from cdc.errors import ConfigError
from cdc.kafka.cluster import Cluster
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.postgres import defects, message_function, outbox_table
from cdc.postgres.connection import Conn, connect

_REACH_SECONDS = 10.0


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
    )
)
@click.option("--print", "print_only", is_flag=True, help="Print the SQL statements without executing them.")
@click.option("--order", is_flag=True, help="Add the column cdc_seq to an existing table, without rewriting it.")
@click.option("--messages", is_flag=True, help="Create the function outbox_emit, which writes events as messages.")
@click.option(
    "--writers", multiple=True, metavar="ROLE", help="With --messages: let ROLE call outbox_emit; repeatable."
)
@click.option(
    "--revoke",
    is_flag=True,
    help="With --messages: revoke the right to write messages without outbox_emit from PUBLIC.",
)
@click.pass_obj
def init(
    invocation: Invocation, print_only: bool, order: bool, messages: bool, writers: tuple[str, ...], revoke: bool
) -> None:
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
    """
    if (writers or revoke) and not messages:
        raise click.UsageError("--writers and --revoke need --messages")
    settings = invocation.settings()
    if messages and settings.outbox.messages is None:
        raise ConfigError("[outbox] messages is not set", hint="set it to the prefix of the messages that are events")
    if not (messages or settings.outbox.table):
        raise ConfigError('[outbox] table is ""', hint="run outbox init --messages, or name a table")
    if print_only and not (order or messages):
        statements = [*outbox_table.create_table(settings), outbox_table.create_publication(settings)]
        click.echo("\n\n".join(statements))
        return
    require(settings, kafka=False)
    kafka = None if print_only else _kafka(settings)
    with connect(settings.postgres.dsn) as connection:
        statements = _statements(connection, settings, order=order, messages=messages)
        statements += [message_function.grant(settings, defects.name(role)) for role in writers]
        rights = message_function.revocations(connection) if messages else []
        if print_only:
            click.echo("\n\n".join(statements + rights))
            return
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
    if kafka is None:
        click.echo('no [kafka] "bootstrap.servers": created no topics; set it and run outbox init again', err=True)
        return
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

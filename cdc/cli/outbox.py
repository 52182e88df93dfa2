"""`outbox`: create the outbox table, its publication and the publisher's own topics, and purge published rows."""

import click

from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.purge import purge
from cdc.config.settings import Settings, require
from cdc.kafka.cluster import Cluster
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.postgres import outbox_table
from cdc.postgres.connection import connect

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
    )
)
@click.option("--print", "print_only", is_flag=True, help="Print the SQL statements without executing them.")
@click.option("--order", is_flag=True, help="Add the column cdc_seq to an existing table, without rewriting it.")
@click.pass_obj
def init(invocation: Invocation, print_only: bool, order: bool) -> None:
    """Create the outbox table, the publication and the publisher's own topics, if missing.

    Running it again changes nothing. An existing table or publication with a different definition is an error. Create
    the replication slot with `slot create`; event topics are created by their owners or with `[topics] create`.

    A new table has the column cdc_seq, which numbers its rows and is no part of an event. If the slot is ever lost,
    missing events are published in its order. `--order` adds it to an existing table: rows that are there get the
    number 0, and come before all others, in the order of their transactions.
    """
    settings = invocation.settings()
    if print_only and not order:
        statements = [*outbox_table.create_table(settings), outbox_table.create_publication(settings)]
        click.echo("\n\n".join(statements))
        return
    require(settings, kafka=False)
    kafka = None if print_only else _kafka(settings)
    with connect(settings.postgres.dsn) as connection:
        statements = outbox_table.missing(connection, settings, numbered=order)
        if print_only:
            click.echo("\n\n".join(statements))
            return
        connection.execute("reset search_path")  # event triggers may depend on it
        outbox_table.execute(connection, statements)
    for statement in statements:
        if not statement.startswith(("CREATE TABLE", "CREATE PUBLICATION")):
            continue
        click.echo(f"created {' '.join(statement.split()[1:3]).lower().replace(chr(34), '')}")
    if any(statement.startswith("ALTER TABLE") for statement in statements):
        click.echo(f"added column {SEQUENCE_COLUMN} to table {settings.outbox.table}")
    if not statements:
        click.echo(f"table {settings.outbox.table} and publication {settings.postgres.publication} exist already")
    if kafka is None:
        click.echo('no [kafka] "bootstrap.servers": created no topics; set it and run outbox init again', err=True)
        return
    for topic, created in kafka.ensure_own_topics(settings.topics).items():
        click.echo(f"created topic {topic}" if created else f"topic {topic} exists already")


def _kafka(settings: Settings) -> Cluster | None:
    """Return the cluster if Kafka is configured. Raises KafkaUnavailable, before anything is created."""
    if not settings.kafka.get("bootstrap.servers"):
        return None
    cluster = Cluster(settings.kafka)
    cluster.reach(_REACH_SECONDS)
    return cluster

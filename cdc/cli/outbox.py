"""`outbox`: the table, its publication, and the publisher's own topics; what may be deleted of the table again."""

import click

from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.purge import purge
from cdc.config.settings import Settings, require
from cdc.kafka.cluster import Cluster
from cdc.postgres import outbox_table as table
from cdc.postgres.connection import connect

_REACH_SECONDS = 10.0


@click.group()
def outbox() -> None:
    """Create the outbox table and its publication, or delete rows that are published."""


outbox.add_command(purge)


@outbox.command(epilog=examples("cdc-publisher outbox init", "cdc-publisher outbox init --print | psql shop"))
@click.option("--print", "print_only", is_flag=True, help="Show the SQL and do nothing.")
@click.pass_obj
def init(invocation: Invocation, print_only: bool) -> None:
    """Create what is missing: the table, the publication, and the publisher's topics.

    Running it again changes nothing. A table or publication of that name but of another shape is refused. The
    replication slot is made by `slot create`, event topics by their owners or `[topics] create`.
    """
    settings = invocation.settings()
    if print_only:
        click.echo(f"{table.create_table(settings)}\n\n{table.create_publication(settings)}")
        return
    require(settings, kafka=False)
    kafka = _kafka(settings)
    with connect(settings.postgres.dsn) as connection:
        statements = table.missing(connection, settings)
        table.execute(connection, statements)
    for statement in statements:
        click.echo(f"created {' '.join(statement.split()[1:3]).lower().replace(chr(34), '')}")
    if not statements:
        click.echo(f"table {settings.outbox.table} and publication {settings.postgres.publication} are in place")
    if kafka is None:
        click.echo('no [kafka] "bootstrap.servers": the topics are left for the next outbox init', err=True)
        return
    for topic, created in kafka.ensure_own_topics(settings.topics).items():
        click.echo(f"created topic {topic}" if created else f"topic {topic} is in place")


def _kafka(settings: Settings) -> Cluster | None:
    """The cluster, known to be there before anything is created; None when there is none in the settings."""
    if not settings.kafka.get("bootstrap.servers"):
        return None
    cluster = Cluster(settings.kafka)
    cluster.reach(_REACH_SECONDS)
    return cluster

"""`takeover`: replace Debezium on its own replication slot."""

import json
from pathlib import Path

import click

from cdc.cli.examples import examples
from cdc.errors import ConfigError
from cdc.takeover import connect_rest, plan
from cdc.takeover.connector import Configuration
from cdc.takeover.documents import parse, parse_worker
from cdc.takeover.translate import translate


@click.group()
def takeover() -> None:
    """Take over an outbox from Debezium's outbox event router.

    docs/debezium.md describes the procedure.
    """


def _read(origin: str) -> str:
    """Return the text of a file or of a URL. Raises ConfigError, ConnectError and ConnectUnavailable."""
    if origin.startswith(("http://", "https://")):
        return connect_rest.fetch(origin)
    try:
        return Path(origin).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not valid UTF-8"
        raise ConfigError(f"{origin}: {reason}") from None


def _configuration(connector: str, worker: str | None, options: tuple[str, ...]) -> Configuration:
    found = parse(_read(connector), connector)
    if worker:
        found = found.with_worker(parse_worker(_read(worker), worker))
    given = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{name!r}: expected OPTION=VALUE", param_hint="--set")
        given[name.strip()] = value
    return found.with_options(given)


@takeover.command(
    "plan",
    epilog=examples(
        "cdc-publisher takeover plan connector.json --worker connect-distributed.properties > cdc-publisher.toml",
        "cdc-publisher takeover plan http://connect:8083/connectors/orders --worker connect.properties",
    ),
)
@click.argument("connector", metavar="FILE|URL")
@click.option("--worker", metavar="FILE|URL", help="Properties of the Connect worker, which has default converters.")
@click.option(
    "--set", "options", multiple=True, metavar="OPTION=VALUE", help="Set one option of the connector; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def plan_(connector: str, worker: str | None, options: tuple[str, ...], *, as_json: bool) -> int:
    """Translate the configuration of a Debezium connector into a settings file.

    Reads a connector's JSON as Kafka Connect takes it, the URL of a connector at Kafka Connect, a KafkaConnector of
    Strimzi, or the properties of Debezium Server. Prints a settings file; its comments have a verdict for each option
    (same, translated, harmless, changes records, refused), and the grants that the publisher needs. Passwords are
    never printed: they become variables of the environment.

    Connects to no server, except for the given URLs; CDC_CONNECT_USERNAME, _PASSWORD, _TOKEN, _CA, _CERTIFICATE and
    _KEY, or the same with _FILE, have the credentials of Kafka Connect.

    Exit codes: 0 every option has a counterpart; 1 some are refused.
    """
    result = translate(_configuration(connector, worker, options))
    click.echo(json.dumps(plan.document(result), indent=2) if as_json else plan.text(result), nl=as_json)
    return 1 if result.refused else 0

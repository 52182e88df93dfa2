"""`takeover`: replace Debezium on its own replication slot."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import click

from cdc.app.signals import stop_on_signals
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import Duration
from cdc.config.settings import Settings, require, require_slot
from cdc.errors import ConfigError
from cdc.logs import setup as logs
from cdc.logs.format import plain
from cdc.takeover import connect_rest, plan
from cdc.takeover.connect_rest import ConnectRest
from cdc.takeover.connector import Configuration
from cdc.takeover.documents import parse, parse_worker
from cdc.takeover.translate import translate

log = logging.getLogger("cdc.takeover")


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


@takeover.command(
    epilog=examples("cdc-publisher takeover compare", "cdc-publisher takeover compare --rows 10000 --json")
)
@click.option(
    "--rows", type=click.IntRange(1), default=1000, show_default=True, help="How many of Debezium's records to compare."
)
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="How many differences to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def compare(invocation: Invocation, rows: int, limit: int, *, as_json: bool) -> int:
    """Compare the publisher's records with Debezium's, without sending any.

    Reads the last records of Debezium from the topics, makes the publisher's records of the same rows, and shows each
    difference of topic, key, partition, value and headers. Rows that were deleted are looked for in a temporary copy of
    the slot. A value with other bytes that is the JSON of the row is reported as a difference of encoding. The headers
    that each program adds to all of its records are left out.

    Exit codes: 0 no event differs; 1 some differ or cannot be published, or no record of Debezium was found; 75
    temporary error; 78 invalid configuration.
    """
    from cdc.takeover.compare import compare as compared  # imports the whole publisher
    from cdc.takeover.differences import counted

    settings = require(require_slot(invocation.settings(), "takeover"))
    result = compared(settings, rows)
    counts = counted(result.differences)
    shown, failures = result.differences[:limit], list(result.failures.items())[:limit]
    if as_json:
        document = {
            "events": result.events,
            "without_row": result.without_row,
            "keys": len(result.keys),
            "moved_keys": result.moved_keys,
            "differences": counts,
            "failures": len(result.failures),
            "shown": [one._asdict() for one in shown],
            "shown_failures": [{"event_id": event_id, "reason": reason} for event_id, reason in failures],
            "note": result.note,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"{result.events} events compared; {result.without_row} have no row any more")
        if not (result.events or result.without_row or result.failures):
            click.echo(plain(f"topics of {settings.topics.name!r} hold no record of Debezium with a header id"))
        if result.note:
            click.echo(plain(result.note))
        click.echo(f"{result.moved_keys} of {len(result.keys)} keys move to another partition")
        for kind, count in counts.items():
            click.echo(f"{count} events differ in {kind}")
        if result.failures:
            click.echo(f"{len(result.failures)} events cannot be published")
        for one in shown:
            click.echo(plain(f"  {one.event_id} {one.kind}: Debezium {one.theirs}, here {one.ours}"))
        for event_id, reason in failures:
            click.echo(plain(f"  {event_id} cannot be published: {reason}"))
    return 1 if counts or result.failures or not result.events else 0


def _connector(command: Any) -> Any:
    """Add the options of commands that stop or start the connector."""
    for option in (
        click.option(
            "--stop",
            "way",
            type=click.Choice(["rest", "manual"]),
            help="Who stops and starts the connector: this command through Kafka Connect's REST interface, or you."
            "  [default: rest with a URL, else manual]",
        ),
        click.option("--worker", metavar="FILE|URL", help="Properties of the Connect worker."),
        click.option(
            "--set", "options", multiple=True, metavar="OPTION=VALUE", help="Set one option of the connector."
        ),
        click.argument("connector", metavar="[FILE|URL]", required=False),
    ):
        command = option(command)
    return command


def _ends(
    invocation: Invocation, connector: str | None, worker: str | None, options: tuple[str, ...], way: str | None
) -> tuple[Settings, threading.Event, ConnectRest | None, Configuration | None]:
    """Return settings, what signals set, Kafka Connect unless its connector is stopped by hand, and its connector."""
    is_url = connector is not None and connector.startswith(("http://", "https://"))
    if way == "rest" and not is_url:
        raise click.UsageError("--stop rest needs the URL of the connector, as http://connect:8083/connectors/NAME")
    settings = require(require_slot(invocation.settings(), "takeover"))
    logs.configure(invocation.log_format, verbose=invocation.verbose, context={"slot": settings.postgres.slot})
    stop = threading.Event()
    stop_on_signals(stop, log)
    rest = ConnectRest(str(connector)) if is_url and way != "manual" else None
    return settings, stop, rest, _configuration(connector, worker, options) if connector else None


@takeover.command(
    "run",
    epilog=examples(
        "cdc-publisher takeover run http://connect:8083/connectors/orders --worker connect.properties",
        "cdc-publisher takeover run connector.json --stop manual",
    ),
)
@_connector
@click.option("--wait", type=Duration(), default="120s", show_default=True, help="How long to wait for the slot.")
@click.option("--keys-move", is_flag=True, help="Accept that keys move to other partitions.")
@click.option("--expect-empty", is_flag=True, help="Accept topics without records of Debezium.")
@click.option("--allow-duplicates", is_flag=True, help="Send again what the slot holds, without looking for ids.")
@click.option("--stay", is_flag=True, help="Publish until SIGTERM or SIGINT, instead of exiting after the proof.")
@click.pass_obj
def run(
    invocation: Invocation,
    connector: str | None,
    worker: str | None,
    options: tuple[str, ...],
    way: str | None,
    *,
    wait: float,
    keys_move: bool,
    expect_empty: bool,
    allow_duplicates: bool,
    stay: bool,
) -> int:
    """Take over the slot of a Debezium connector, without losing, repeating or reordering an event.

    Uses the settings that `takeover plan` prints: the slot and the publication are the connector's own. Checks
    everything before it changes anything; waits until the slot has caught up; stops the connector, or waits until you
    have stopped it; publishes what the slot still holds, except for events whose id is in the topics already; and
    proves that each of these events has exactly one record, in order per key. Then run `start`.

    If it is interrupted, run it again with the same arguments.

    Exit codes: 0 taken over and proven; 1 refused, or the proof failed; 75 interrupted or temporary error, run it
    again; 78 invalid configuration.
    """
    from cdc.takeover.refusals import Choices
    from cdc.takeover.run import Takeover  # imports the whole publisher

    settings, stop, rest, configuration = _ends(invocation, connector, worker, options, way)
    choices = Choices(
        wait_seconds=wait,
        keys_move=keys_move,
        expect_empty=expect_empty,
        allow_duplicates=allow_duplicates,
        stay=stay,
    )
    Takeover(settings, choices, click.echo, stop, rest=rest, configuration=configuration).run()
    return 0


@takeover.command(
    "undo",
    epilog=examples(
        "cdc-publisher takeover undo http://connect:8083/connectors/orders --worker connect.properties",
        "cdc-publisher takeover undo connector.json --stop manual",
    ),
)
@_connector
@click.pass_obj
def undo(
    invocation: Invocation, connector: str | None, worker: str | None, options: tuple[str, ...], way: str | None
) -> int:
    """Give the slot back to Debezium, without losing, repeating or reordering an event.

    Stop the publisher first; the connector must be STOPPED, as `takeover run` left it. Publishes what the slot still
    holds, moves the connector's stored offsets to the slot's position (Kafka Connect 3.6 or newer), deletes the slot's
    record in Kafka, so that `start` refuses the slot, lets the connector resume, and waits until it reads the slot.
    With `--stop manual` it prints the offsets to set, and waits until you have started Debezium. Offsets are never
    deleted.

    If it is interrupted, run it again with the same arguments.

    Exit codes: 0 Debezium reads the slot; 1 refused, or the connector has failed; 75 interrupted or temporary error,
    run it again; 78 invalid configuration.
    """
    from cdc.takeover.undo import Undo  # imports the whole publisher

    settings, stop, rest, configuration = _ends(invocation, connector, worker, options, way)
    Undo(settings, click.echo, stop, rest=rest, configuration=configuration).run()
    return 0

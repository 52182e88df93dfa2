"""Translates a connector's configuration into settings, and gives each option a verdict.

What Debezium does with each option was read in its documentation and source, and measured where docs/debezium.md has
a table of it.
"""

import difflib
import re
from typing import Final

from cdc.takeover import kafka_properties, options, router
from cdc.takeover.connector import PLACEHOLDER, Configuration
from cdc.takeover.reading import Options
from cdc.takeover.verdicts import Supports, Translation, Verdict, supported

CONNECTOR: Final = "io.debezium.connector.postgresql.PostgresConnector"
_ROUTER: Final = "io.debezium.transforms.outbox.EventRouter"
_PASSWORD: Final = "CDC_POSTGRES__PASSWORD"


def translate(configuration: Configuration, supports: Supports = supported) -> Translation:
    """Return settings and verdicts for a connector and its worker, for a version with the settings of `supports`."""
    given = Options(configuration, supports)
    for rule in (
        _connector,
        _database,
        _slot,
        _table,
        _transforms,
        router.translate,
        router.converters,
        _delivery,
        kafka_properties.translate,
        _topic_creation,
        _rest,
    ):
        rule(given)
    _notes(given)
    return given.result


def _connector(given: Options) -> None:
    name = given.get("connector.class")
    if name in (CONNECTOR, "PostgresConnector", "Postgres"):
        given.say("same", "connector.class", "PostgreSQL through pgoutput")
    else:
        given.say("refused", "connector.class", f"only {CONNECTOR} can be taken over", missing=True)
    if given.configuration.kind == "server":
        sink = given.get("debezium.sink.type")
        verdict: Verdict = "same" if sink == "kafka" else "refused"
        given.say(verdict, "debezium.sink.type", "Kafka" if sink == "kafka" else "only a sink of Kafka", missing=True)
    for name in [each for each in given.left() if each.startswith("debezium.sink.kafka.")]:
        given.say("harmless", name, "belongs to Debezium Server")


def _database(given: Options) -> None:
    """Make `[postgres] dsn` of the connection's options; passwords are references."""
    parts = {}
    for option, keyword in (("hostname", "host"), ("port", "port"), ("dbname", "dbname"), ("user", "user")):
        name = f"database.{option}"
        value = given.get(name)
        if keyword == "user" and PLACEHOLDER.search(value):
            given.refer("PGUSER", f"{name} of the connector is {value}")
            given.say("translated", name, "the variable PGUSER of the environment")
        elif value and given.plain(name):
            parts[keyword] = value
            given.say("translated", name, f"[postgres] dsn, {keyword}")
        elif not value and keyword in ("host", "dbname", "user"):
            given.say("refused", name, "is required", missing=True)
    if given.has("database.password"):
        given.refer(_PASSWORD, "the password of PostgreSQL, or its file as CDC_POSTGRES__PASSWORD_FILE")
        given.say("translated", "database.password", f"the variable {_PASSWORD} of the environment")
    for option in ("sslmode", "sslcert", "sslkey", "sslrootcert"):
        name = f"database.{option}"
        if given.get(name) and given.plain(name):
            parts[option] = given.get(name)
            key = option == "sslkey"
            text = "; as PEM, which libpq reads: Java's key is in DER (PK8)" if key else ""
            given.say("translated", name, f"[postgres] dsn, {option}{text}")
    if given.has("database.sslpassword"):
        given.refer("CDC_POSTGRES__DSN", "the whole dsn, with sslpassword")
        given.say("translated", "database.sslpassword", "sslpassword of the variable CDC_POSTGRES__DSN")
    given.result.put("postgres", "dsn", " ".join(f"{name}={_quoted(value)}" for name, value in parts.items()))


def _quoted(value: str) -> str:
    if re.fullmatch(r"[^\s'\\]+", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _slot(given: Options) -> None:
    plugin = given.get("plugin.name", "decoderbufs")
    if plugin in ("pgoutput", ""):
        given.say("same", "plugin.name", "pgoutput")
    else:
        given.say(
            "refused",
            "plugin.name",
            f"the slot has the output plugin {plugin}, and the publisher reads pgoutput: use a new slot, as"
            " docs/debezium.md describes",
            missing=True,
        )
    for option, setting, default in (
        ("slot.name", "slot", "debezium"),
        ("publication.name", "publication", "dbz_publication"),
    ):
        given.setting(option, "postgres", setting, default, verdict="same", text="the same one is used")


def _table(given: Options) -> None:
    """Find the one table that is routed: others, of heartbeats and signals, do not count."""
    name = "table.include.list" if given.has("table.include.list") else "table.whitelist"
    tables = [table.strip() for table in given.get(name).split(",") if table.strip()]
    unrouted = {_plain(table) or table for table in given.get("signal.data.collection").split(",")}
    heartbeat = given.get("heartbeat.action.query").lower()
    routed = [table for table in tables if (_plain(table) or table) not in unrouted]
    if len(routed) > 1 and heartbeat:
        routed = [table for table in routed if (_plain(table) or table).split(".")[-1].lower() not in heartbeat]
    routed = [table for table in routed if router.is_routed(given, _plain(table) or table)]
    plain = [_plain(table) for table in routed]
    advice = f"; name the outbox table with --set {name}=SCHEMA.TABLE"
    if not tables:
        given.say("refused", "table.include.list", "the connector reads every table" + advice, missing=True)
    elif not given.plain(name):
        return
    elif len(routed) != 1:
        given.say("refused", name, f"{len(routed)} tables are routed: each needs a publisher of its own{advice}")
    elif plain[0] is None:
        given.say("refused", name, f"a regular expression, not the name of one table{advice}")
    else:
        given.setting(name, "outbox", "table", value=plain[0])


def _plain(pattern: str) -> str | None:
    """Return the table that a pattern matches if it has no other, as `schema.table`."""
    name = re.sub(r"\\(.)", r"\1", pattern)
    unescaped = re.sub(r"\\.", "", pattern)
    if re.search(r"[*+?()\[\]{}|^$]", unescaped) or name.count(".") != 1:
        return None
    return name


def _transforms(given: Options) -> None:
    """Find the event router among the transforms; others would change records."""
    names = [name.strip() for name in given.get("transforms").split(",") if name.strip()]
    routers = [name for name in names if given.get(f"transforms.{name}.type") == _ROUTER]
    if len(routers) == 1:
        given.router = f"transforms.{routers[0]}."
        given.say("same", "transforms", "the outbox event router")
        given.say("same", f"{given.router}type", "the outbox event router")
    else:
        count = "has no outbox event router" if not routers else f"has {len(routers)} outbox event routers"
        given.say("refused", "transforms", f"the connector {count}: its records cannot be made again", missing=True)
    for name in names:
        prefix = f"transforms.{name}."
        if name in routers[:1]:
            continue
        kind = given.get(f"{prefix}type", "no type")
        given.say("refused", f"{prefix}type", f"the transform {kind} changes records", missing=True)
        for option in [each for each in given.left() if each.startswith(prefix)]:
            given.say("refused", option, f"belongs to the transform {name}")


def _delivery(given: Options) -> None:
    failures = given.get("event.processing.failure.handling.mode", "fail")
    tolerance = given.get("errors.tolerance", "none")
    if failures != "fail" or tolerance != "none":
        given.result.put("delivery", "on_poison", "dead-letter")
    for name, value, default in (
        ("event.processing.failure.handling.mode", failures, "fail"),
        ("errors.tolerance", tolerance, "none"),
    ):
        if value == default:
            given.say("same", name, "the publisher stops before a row that cannot be published")
        else:
            given.say("translated", name, '[delivery] on_poison = "dead-letter": Debezium drops such rows silently')
    support = given.get("exactly.once.support", "requested")
    enabled = given.configuration.worker.get("exactly.once.source.support", "disabled") == "enabled"
    if support == "required" or enabled:
        given.result.put("delivery", "guarantee", "exactly-once")
        given.say("translated", "exactly.once.support", '[delivery] guarantee = "exactly-once"', missing=True)
    else:
        given.say("same", "exactly.once.support", "at least once")
    skipped = {each.strip() for each in given.get("skipped.operations").split(",")}
    if "c" in skipped:
        given.say("refused", "skipped.operations", "inserts are skipped, and they are the events")
    else:
        given.say("same", "skipped.operations", "only inserts are events")
    headers = given.get("extended.headers.enabled", "true")
    if headers == "true":
        given.say("changes records", "extended.headers.enabled", "no headers `__debezium.context.*`")
    else:
        given.say("same", "extended.headers.enabled", "no such headers")


def _topic_creation(given: Options) -> None:
    prefix = "topic.creation."
    for name in [each for each in given.left() if each.startswith(prefix)]:
        group, _, setting = name.removeprefix(prefix).partition(".")
        if group == "default" and setting in ("partitions", "replication.factor") and given.number(name):
            given.result.put("topics", "create", True)
            given.result.put("topics", setting.replace(".", "_"), int(given.get(name)))
            given.say("translated", name, f"[topics] {setting.replace('.', '_')}")
        elif group == "default" and setting and given.plain(name):
            given.result.settings.setdefault("topics", {}).setdefault("config", {})[setting] = given.get(name)
            given.say("translated", name, "[topics] config")
        elif group in ("enable", "groups") or setting:
            given.say("harmless", name, "existing topics stay as they are; create others of this group yourself")


def _rest(given: Options) -> None:
    """Give a verdict on every option that is left."""
    for name in given.left():
        value = given.get(name)
        found = options.rule(name, value)
        if found is None:
            near = difflib.get_close_matches(name, {*options.known(), *given.asked} - {name}, n=1, cutoff=0.8)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            given.say("refused", name, f"unknown option{guess}")
        elif found.verdict == "harmless" or given.plain(name):
            given.say(found.verdict, name, found.reason)


def _notes(given: Options) -> None:
    notes = given.result.notes
    notes.append("the header cdc-position is added to each record, and eventType where Debezium did not place it")
    if not given.result.settings.get("record", {}).get("timestamp"):
        notes.append("the record time is the time of the commit; Debezium's is the time of processing")
    notes.append("updates and deletes are not events, without a warning")

"""Translates the options of Debezium's outbox event router, and the converters that make keys, values and headers."""

import re
from typing import Final

from cdc.config.toml_text import value_text
from cdc.errors import ConfigError
from cdc.outbox.columns import is_own
from cdc.outbox.topic_template import TopicTemplate
from cdc.takeover.reading import Options
from cdc.takeover.verdicts import ALIASES

_IDENTITY: Final = re.compile(r"\.[*+]|\((?:\?<(\w+)>)?\.[*+]\)")
_TYPE: Final = "eventType"
_MOVE: Final = "keys move to other partitions: `takeover run` refuses that without --keys-move"
_ASK: Final = "the worker decides: give its file with --worker, or the class with --set {}=CLASS"
_SIMPLE_HEADERS: Final = ("SimpleHeaderConverter", "StringConverter")
_BYTES: Final = ("ByteArrayConverter", "BinaryDataConverter", "ByteBufferConverter")
_SUBJECTS: Final = {
    "TopicNameStrategy": "topic-name",
    "RecordNameStrategy": "record-name",
    "TopicRecordNameStrategy": "topic-record-name",
}


def is_routed(given: Options, table: str) -> bool:
    """Return whether a table's records reach the event router: of predicates, TopicNameMatches is evaluated."""
    found = predicate(given)
    if found is None:
        return True
    pattern, negated = found
    prefix = given.get("topic.prefix") or given.get("database.server.name")
    return (re.fullmatch(pattern, f"{prefix}.{table}") is not None) != negated


def predicate(given: Options) -> tuple[str, bool] | None:
    """Return the pattern of topics for the event router, and whether it is negated; None without a usable one."""
    prefix = next(
        (
            f"transforms.{name.strip()}."
            for name in given.get("transforms").split(",")
            if given.get(f"transforms.{name.strip()}.type").endswith(".EventRouter")
        ),
        "",
    )
    name = given.get(f"{prefix}predicate") if prefix else ""
    kind, pattern = (given.get(f"predicates.{name}.{each}") for each in ("type", "pattern"))
    if not kind.endswith(".TopicNameMatches"):
        return None
    try:
        re.compile(_python(pattern))
    except re.error:
        return None
    return _python(pattern), given.flag(f"{prefix}negate")


def _python(pattern: str) -> str:
    return re.sub(r"\(\?<(\w)", r"(?P<\1", pattern)


def translate(given: Options) -> None:
    """Translate the options of the router."""
    _predicates(given)
    if not given.router:
        for name in [each for each in given.left() if each.startswith("transforms.")]:
            given.say("refused", name, "belongs to no transform")
        return
    prefix = given.router
    for option, column in (("id", "id"), ("key", "key"), ("type", "type"), ("payload", "payload")):
        default = {"key": "aggregateid"}.get(option, column)
        given.setting(f"{prefix}table.field.event.{option}", "outbox", f"columns.{column}", default, missing=False)
    given.setting(f"{prefix}route.by.field", "outbox", "columns.aggregate", "aggregatetype", missing=False)
    legacy = f"{prefix}table.field.event.payload.id"
    given.say("harmless", legacy, "an option of Debezium 1, which later versions do not read")
    _topic(given)
    _timestamp(given)
    _placements(given)
    tombstones = given.get(f"{prefix}route.tombstone.on.empty.payload", "false") == "true"
    given.setting(f"{prefix}route.tombstone.on.empty.payload", "outbox", "tombstones", value=tombstones, missing=False)
    for name in ("table.op.invalid.behavior", "debezium.op.invalid.behavior"):
        given.say("harmless", prefix + name, "updates and deletes are not events, and stop nothing")
    for name in ("table.field.additional.missing", "table.fields.additional.error.on.missing"):
        given.say("harmless", prefix + name, "a missing column always stops the publisher")
    for name in ("tracing.span.context.field", "tracing.operation.name", "tracing.with.context.field.only"):
        given.say("harmless", prefix + name, "trace context comes from the columns traceparent and tracestate")


def _predicates(given: Options) -> None:
    usable = predicate(given) is not None
    names = [name.strip() for name in given.get("predicates").split(",") if name.strip()]
    used = given.get(f"{given.router}predicate") if given.router else ""
    for name in names:
        mine = usable and name == used
        text = "evaluated for the outbox table" if mine else "only TopicNameMatches for the outbox event router"
        for option in [each for each in given.left() if each.startswith(f"predicates.{name}.")]:
            given.say("same" if mine else "refused", option, text)
    fits = not names or (usable and names == [used])
    given.say("same" if fits else "refused", "predicates", "see the options of each" if names else "none")
    if given.router:
        for option in ("predicate", "negate"):
            idle = option == "negate" and not given.flag(f"{given.router}negate")
            text = "evaluated for the outbox table" if usable or idle else "only TopicNameMatches can be evaluated"
            given.say("same" if usable or idle else "refused", given.router + option, text)


def _topic(given: Options) -> None:
    """Translate regular expression and replacement into a template, where the expression keeps the routed value."""
    regex_name, name = f"{given.router}route.topic.regex", f"{given.router}route.topic.replacement"
    regex = given.get(regex_name, "(?<routedByValue>.*)")
    replacement = given.get(name, "outbox.event.${routedByValue}")
    column = given.get(f"{given.router}route.by.field", "aggregatetype")
    found = _IDENTITY.fullmatch(regex)
    if not found:
        given.say(
            "refused",
            regex_name,
            "not the whole value: fill a column with the topic by a trigger, and set route.by.field to it",
        )
        return
    given.say("same", regex_name, "the whole value")
    groups = {"$0", *(["$1"] if "(" in regex else []), *([f"${{{found[1]}}}"] if found[1] else [])}
    parts = re.split(r"(\$\{\w+\}|\$\d)", replacement)
    unknown = [part for part in parts[1::2] if part not in groups]
    if unknown:
        given.say("refused", name, f"the regular expression has no group {', '.join(unknown)}")
        return
    literals = [re.sub(r"\\(.)", r"\1", part).replace("{", "{{").replace("}", "}}") for part in parts[::2]]
    template = f"{{{column}}}".join(literals)
    try:
        TopicTemplate(template)
    except ConfigError as error:
        given.say("refused", name, str(error), missing=True)
        return
    given.setting(name, "topics", "name", value=template)


def _timestamp(given: Options) -> None:
    name = f"{given.router}table.field.event.timestamp"
    if given.has(name):
        given.setting(name, "record", "timestamp")
    else:
        given.say("harmless", name, "the record time is the time of the commit")
    version = f"{given.router}table.field.event.schema.version"
    if given.has(version):
        given.say("changes records", version, "records have no version of a Connect schema")


def _placements(given: Options) -> None:
    """Translate `column:header[:alias]`; envelopes and partitions have no setting."""
    name = f"{given.router}table.fields.additional.placement"
    if not given.has(name) or not given.plain(name):
        given.say("harmless", name, "empty")
        return
    type_column = given.get(f"{given.router}table.field.event.type", "type")
    headers: list[str] = []
    problems: list[str] = []
    for item in given.get(name).split(","):
        column, placement, alias = [*(part.strip() for part in item.split(":")), "", ""][:3]
        header = alias or column
        if placement != "header":
            problems.append(f"{item.strip()}: only headers can hold columns")
        elif header == _TYPE and column == type_column:
            continue  # every record has it
        elif is_own(header) or header == "content-type" or header.startswith(("cdc-", "ce_")):
            problems.append(f"{item.strip()}: the publisher sets a header of this name itself, or reserves it")
        elif header != column and not given.supports("outbox", ALIASES):
            problems.append(f"{item.strip()}: needs aliases of headers, which this version does not have")
        else:
            headers.append(column if header == column else f"{column}:{header}")
    if problems:
        given.say("refused", name, "; ".join(problems))
    elif headers:
        given.result.put("outbox", "headers", headers)
        text = "numeric, time, interval and array columns have PostgreSQL's text"
        given.say("translated", name, f"[outbox] headers = {value_text(headers)}; {text}")
    else:
        given.say("same", name, f"every record has the header {_TYPE}")


def converters(given: Options) -> None:
    """Translate the converters of values, keys and headers; what the connector does not have is the worker's."""
    _value(given, *_converter(given, "value"))
    _key(given, *_converter(given, "key"))
    name, schemas = _converter(given, "header", "org.apache.kafka.connect.storage.SimpleHeaderConverter")
    short = name.rsplit(".", 1)[-1]
    if short in _SIMPLE_HEADERS:
        given.say("same", "header.converter", "text")
    elif short == "JsonConverter":
        quoted = "wrapped in a schema" if schemas else "in quotes"
        given.say(
            "changes records",
            "header.converter",
            f"header values are text; Debezium's are JSON, {quoted}",
            missing=True,
        )
    else:
        given.say("refused", "header.converter", f"header values of {short} are not text", missing=True)
    for option in [each for each in given.left() if re.match(r"(key|value|header)\.converter\.", each)]:
        known = option.split(".", 2)[2]
        if known.startswith(
            ("schemas.", "delegate.converter.", "decimal.format", "replace.null.with.default", "encoding")
        ):
            given.say("harmless", option, "belongs to the converter")
        elif known.startswith(
            ("schema.registry.", "basic.auth.", "auto.register", "use.latest", "enhanced.", "normalize.")
        ):
            given.say("harmless", option, "belongs to the converter; [schema_registry] has the publisher's settings")
        elif known.endswith("subject.name.strategy"):
            given.say("translated", option, "[avro] subject")


def _converter(given: Options, part: str, default: str = "") -> tuple[str, bool]:
    """Return the class of a converter, and whether it writes schemas."""
    name = f"{part}.converter"
    worker = given.configuration.worker
    if given.has(name):
        return given.get(name), given.flag(f"{name}.schemas.enable", default=True)
    schemas = worker.get(f"{name}.schemas.enable", "true").strip().lower() == "true"
    return worker.get(name, default).strip(), schemas


def _value(given: Options, name: str, schemas: bool) -> None:
    option, short = "value.converter", name.rsplit(".", 1)[-1]
    expanded = given.flag(f"{given.router}table.expand.json.payload") if given.router else False
    text = ""
    if not name:
        given.say("refused", option, _ASK.format(option), missing=True)
    elif short in _BYTES:
        given.say("same", option, "bytea payloads pass unchanged", missing=True)
        if given.supports("record", "value"):
            given.result.put("record", "value", "text")  # needs no contracts, and leaves bytea as it is
    elif short == "StringConverter":
        text = "Debezium writes the expanded payload in Java's notation" if expanded else "the same bytes"
    elif short == "JsonConverter" and schemas:
        text = 'the JSON alone; Debezium wraps it in {"schema": ..., "payload": ...}'
    elif short == "JsonConverter" and expanded:
        text = "the JSON as PostgreSQL has it; Debezium leaves out null fields and empty arrays, and rewrites numbers"
    elif short == "JsonConverter":
        text = "JSON; Debezium writes it as a quoted string within JSON"
    elif name.startswith("io.confluent.") and short == "AvroConverter":
        _avro(given)
    else:
        given.say("refused", option, f"values of {name} cannot be made again", missing=True)
    if text:
        same = text == "the same bytes"
        given.setting(option, "record", "value", value="text", verdict="same" if same else "changes records", text=text)
    if given.router:
        effect = "see value.converter"
        given.say(
            "changes records" if expanded and not same_bytes(short) else "harmless",
            f"{given.router}table.expand.json.payload",
            effect,
        )
        for each in ("null", "empty.array"):
            given.say("harmless", f"{given.router}table.json.payload.{each}.behavior", effect)


def same_bytes(short: str) -> bool:
    """Return whether a converter passes bytes."""
    return short in _BYTES


def _avro(given: Options) -> None:
    worker = given.configuration.worker
    prefix = "value.converter."
    url = given.get(f"{prefix}schema.registry.url") or worker.get(f"{prefix}schema.registry.url", "")
    strategy = given.get(f"{prefix}value.subject.name.strategy").rsplit(".", 1)[-1]
    bare = re.sub(r"(?<=://)[^/@,]*@", "", url)
    if url and given.plain(f"{prefix}schema.registry.url"):
        given.result.put("schema_registry", "url", bare)
        given.result.put("avro", "framing", "confluent")
        given.result.put("avro", "subject", _SUBJECTS.get(strategy, "topic-name"))
        given.say("translated", f"{prefix}schema.registry.url", "[schema_registry] url")
    info = f"{prefix}basic.auth.user.info"
    if given.has(info) or info in worker or bare != url:
        given.refer("CDC_SCHEMA_REGISTRY__USERNAME", "the user of the registry")
        given.refer("CDC_SCHEMA_REGISTRY__PASSWORD", "its password")
    text = "values are Avro by a contract for each event type; Debezium registers schemas that it infers"
    given.say("changes records", "value.converter", text, missing=True)


def _key(given: Options, name: str, schemas: bool) -> None:
    option, short = "key.converter", name.rsplit(".", 1)[-1]
    if not name:
        given.say("refused", option, _ASK.format(option), missing=True)
    elif short == "StringConverter":
        given.say("same", option, "the key column's text", missing=True)
    elif short == "JsonConverter":
        form = "json-schema" if schemas else "json"
        done = given.setting(option, "record", "key", value=form, verdict="same", text="the same bytes")
        if done and schemas and given.supports("record", "key_optional"):
            given.result.put("record", "key_optional", False)
            given.result.notes.append("set [record] key_optional = true if the key column allows NULL")
    elif short in _BYTES:
        given.say("refused", option, "a key of type bytea", missing=True)
    else:
        given.say("changes records", option, f"the key is text; {_MOVE}", missing=True)

"""The public surface of the program by its code, one entry a line, as tests/surface.json keeps it.

`python -m tests.surface` writes that file again: what it changes is what a release promises otherwise than before.
"""

import contextlib
import importlib
import inspect
import io
import json
import logging
import os
import pkgutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import MagicMock, patch

import click
import orjson
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

import cdc
from cdc import consumer
from cdc.audit.books import AuditFinding as Found
from cdc.audit.judging import Note
from cdc.checks.finding import PASS, Finding
from cdc.checks.meanings import MEANINGS
from cdc.cli import audit as audit_command
from cdc.cli import check as check_command
from cdc.cli import contract_set
from cdc.cli import dlq as dlq_command
from cdc.cli import infer as infer_command
from cdc.cli import local as local_command
from cdc.cli import purge as purge_command
from cdc.cli import slot as slot_command
from cdc.cli.findings import _MEANINGS as COUNTS
from cdc.cli.main import cli, run
from cdc.config.librdkafka import OURS, PROMISES
from cdc.config.settings import Settings
from cdc.consumer.inbox import Inbox
from cdc.dead_letters.producer import ResendProducer
from cdc.dead_letters.topic import Entry
from cdc.errors import CdcError
from cdc.http.answers import Answer
from cdc.http.application import METHODS, Application
from cdc.inference.rows import TypeRows
from cdc.kafka import client
from cdc.kafka import transactional_producer as transactions
from cdc.kafka.cluster import DEAD_LETTERS_CONFIG, POSITIONS_CONFIG
from cdc.logs.format import Json
from cdc.lsn import LSN
from cdc.postgres import rows, slots
from cdc.postgres.outbox_table import create_publication, create_table
from cdc.postgres.slots import Slot
from cdc.records.headers import stream_id
from cdc.status.document import RecordStatus, TableStatus, parse, unknown
from cdc.status.from_metrics import describe
from cdc.telemetry.health import State
from cdc.telemetry.metrics import Metrics
from tests import golden, specimen
from tests.logged import lines
from tests.registry import Double

FILE: Final = Path(__file__).with_name("surface.json")

Entries = Iterator[tuple[str, Any]]
Surface = dict[str, dict[str, Any]]


def surface() -> Surface:
    """Return every entry of the surface, by section."""
    for module in pkgutil.walk_packages(cdc.__path__, "cdc."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return {section: dict(sorted(entries())) for section, entries in sorted(SECTIONS.items())}


def differences(kept: Surface, found: Surface) -> list[str]:
    """Return a line for each entry that was added, removed or changed."""
    told = []
    for section in sorted({*kept, *found}):
        before, now = kept.get(section, {}), found.get(section, {})
        told += [f"removed: {section}: {name}: {_json(before[name])}" for name in before if name not in now]
        told += [f"added: {section}: {name}: {_json(now[name])}" for name in now if name not in before]
        told += [
            f"changed: {section}: {name}: {_json(before[name])} -> {_json(now[name])}"
            for name in before
            if name in now and before[name] != now[name]
        ]
    return told


def text(found: Surface) -> str:
    """Return the file's text."""
    sections = []
    for section, entries in found.items():
        lines = [f"  {_json(name)}: {_json(value)}" for name, value in entries.items()]
        sections.append(f" {_json(section)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def load() -> Surface:
    """Read the file."""
    read: Surface = json.loads(FILE.read_text())
    return read


def _commands() -> Entries:
    return _command(cli, "cdc-publisher", click.Context(cli))


def _command(command: click.Command, path: str, context: click.Context) -> Entries:
    yield path, "group" if isinstance(command, click.Group) else "command"
    for parameter in command.params:
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.human_readable_name]
        yield f"{path} {', '.join([*names, *parameter.secondary_opts])}", _parameter(parameter, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found
            yield from _command(found, f"{path} {name}", context)


def _parameter(parameter: click.Parameter, context: click.Context) -> str:
    facts = parameter.to_info_dict()
    words = [facts["param_type_name"], _type(parameter.type)]
    words += [word for word in ("is_flag", "count", "multiple", "required", "hidden") if facts.get(word)]
    words += [f"nargs {facts['nargs']}"] if facts["nargs"] != 1 else []
    default = parameter.get_default(context)
    words += [f"default {json.dumps(default)}"] if isinstance(default, (str, int, float)) else []
    return ", ".join(words)


def _type(kind: click.ParamType[Any]) -> str:
    if isinstance(kind, click.Choice):
        return "|".join(map(str, kind.choices))
    facts: dict[str, Any] = {**kind.to_info_dict()}
    bounds = ("min", "max", "min_open", "max_open", "exists", "file_okay", "dir_okay")
    return " ".join([facts["name"], *(f"{name}={facts[name]}" for name in bounds if facts.get(name) is not None)])


def _settings() -> Entries:
    schema = Settings.model_json_schema()
    return _fields(schema, schema["$defs"], "")


def _fields(schema: Any, definitions: Any, above: str) -> Entries:
    for name, field in schema.get("properties", {}).items():
        field = _resolved(field, definitions)
        if "properties" in field:
            yield from _fields(field, definitions, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


def _resolved(schema: Any, definitions: Any) -> Any:
    """Return a schema with what it refers to written out, without its words."""
    if isinstance(schema, list):
        return [_resolved(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    words = ("title", "description", "$ref")
    own = {name: value for name, value in schema.items() if name not in words}
    if "properties" in schema:
        return own
    return {name: _resolved(value, definitions) for name, value in own.items()}


def _properties() -> Entries:
    for name, (value, _) in OURS.items():
        yield name, {"default": value}
    for name, (allowed, _) in PROMISES.items():
        yield f"{name}, allowed", list(allowed)


def _exit_codes() -> Entries:
    for error in _subclasses(CdcError):
        parents = ", ".join(parent.__name__ for parent in error.__bases__)
        yield error.__name__, f"{error.exit_code}, a {parents}"
    for state in State:
        for ready in (True, False):
            found = unknown("", "", "", "", "").model_copy(update={"state": state, "ready": ready})
            yield f"status: {state.value}, {'ready' if ready else 'not ready'}", str(found.exit_code)
    yield "status: no answer", str(unknown("", "", "", "", "").exit_code)
    yield "status: refused", str(unknown("", "", "", "", "", refused=True).exit_code)
    for raised in (click.Abort(), click.UsageError(""), click.exceptions.Exit(3)):
        with patch.object(cli, "main", side_effect=raised), contextlib.redirect_stderr(io.StringIO()):
            yield f"click's {type(raised).__name__}", str(run([]))


def _subclasses(error: type[CdcError]) -> Iterator[type[CdcError]]:
    if error.__module__.startswith("cdc."):
        yield error
    for one in error.__subclasses__():
        yield from _subclasses(one)


def _metrics() -> Entries:
    body = _answers()["/metrics"].body
    of_fleet = specimen.fleet().answer("GET", "/metrics", "*/*").body
    for family in text_string_to_metric_families(f"{body.decode()}{of_fleet.decode()}"):
        if family.name.startswith("cdc_"):
            for sample in family.samples:
                named = [f"{name}={value}" if name in _CLOSED else name for name, value in sample.labels.items()]
                yield f"{sample.name}{{{', '.join(named)}}}", family.type


_CLOSED: Final = ("le", "state")  # labels whose values are promised


def _http() -> Entries:
    values: dict[str, set[str]] = {}
    for request, answer in _answers().items():
        yield f"GET {request}", f"{answer.status.value} {answer.status.phrase}, {answer.content_type}"
        for name, value in answer.headers.items():
            values.setdefault(name, set()).add(value)
    own = ("Content-Type", "Content-Length", "Content-Security-Policy")  # these differ from answer to answer
    yield from ((f"header {name}", " or ".join(sorted(found))) for name, found in values.items() if name not in own)
    yield "methods", ", ".join(METHODS)


def _answers() -> dict[str, Answer]:
    application = Application(specimen.metrics(), specimen.IDENTITY)
    return {
        f"{path} {accept}".strip(): application.answer("GET", path, accept)
        for path in ("/", "/livez", "/readyz", "/status", "/metrics", "/nothing")
        for accept in ("", "text/plain", "application/openmetrics-text")
    }


def _status() -> Entries:
    yield from _keys(_reports(), _TOPICS)
    yield from ((f"probe {path}: {key}", kind) for path in ("/livez", "/readyz") for key, kind in _probe(path))


_TOPICS: Final = frozenset({"topics.", "other_messages."})


def _reports() -> list[dict[str, Any]]:
    """Return the documents of a publisher at work and of one that has just begun."""
    at_work, begun = specimen.metrics(golden.NOON), Metrics(golden.NOON)
    at_work.oldest = golden.NOON - 1
    return [describe(metrics, specimen.IDENTITY, golden.NOON).served() for metrics in (at_work, begun)]


def _probe(path: str) -> Entries:
    return _keys([orjson.loads(_answers()[path].body)])


def _keys(documents: Iterable[Any], data: Set[str] = frozenset()) -> Entries:
    """Return the path of every key and the types of its values.

    `data` names what depends on the user: `topics.` for the keys of an object, `payload` for a whole value.
    """
    kinds: dict[str, set[str]] = {}
    for document in documents:
        for path, kind in _leaves(document, "", data):
            kinds.setdefault(path, set()).add(kind)
    return ((path, "|".join(sorted(found))) for path, found in kinds.items())


def _leaves(value: Any, path: str, data: Set[str]) -> Entries:
    if path in data:
        yield path, "any"
    elif isinstance(value, dict):
        yield path or ".", "object"
        for key, item in value.items():
            step = "*" if f"{path}." in data else key
            yield from _leaves(item, f"{path}.{step}" if path else step, data)
    elif isinstance(value, list):
        yield path or ".", "array"
        for item in value:
            yield from _leaves(item, f"{path}[]", data)
    else:
        yield path or ".", _KINDS[type(value)]


_KINDS: Final = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}


def _json_outputs() -> Entries:
    """Run every command that has --json, without servers."""
    for name, documents in _outputs().items():
        yield from ((f"{name}: {path}", kind) for path, kind in _keys(documents, _DATA.get(name, frozenset())))


_DATA: Final[Mapping[str, Set[str]]] = {
    "status": _TOPICS,
    "schema show": {"schema"},
    "dlq show": {"headers.", "payload"},
    "outbox purge": {"dropped.", "failed."},
}


def _outputs() -> dict[str, list[Any]]:
    with tempfile.TemporaryDirectory() as folder, Double(lambda _, olds, __: ["refused"] if olds else []) as registry:
        call = _Caller(Path(folder), registry)
        return {
            "status": _status_documents(),
            "check": [call("check", _checking)],
            "config show": [dict.fromkeys(call("config show"))],
            "schema register": [call(f"schema register {to}", _no_rows, url=True) for to in ("", "--topic t")],
            "schema list": [call("schema list", _no_rows), call("schema list --topic t", url=True)],
            "schema check": [
                call("schema check --topic t", url=True),
                call("schema check", _no_rows, against=True),
                call("schema check --table", _rows_that_do_not_fit),
            ],
            "schema show": [call(f"schema show shop.OrderPlaced {how}") for how in ("", "--compiled")],
            "schema infer": [call(f"schema infer --output {folder}/inferred", _rows_to_infer)],
            "dlq list": [call("dlq list", _letters)],
            "dlq show": [call("dlq show any", _letters)],
            "slot list": [call("slot list", _slots)],
            "outbox purge": [call("outbox purge", _purging)],
            "audit": [call("audit", _auditing), call(f"audit --repair {_RANGE}", _auditing)],
            "local up": [call("local up", _stacked)],
        }


_RANGE: Final = "--since 2d --until 1d --from-id a --to-id b --from-lsn 0/1 --to-lsn 0/2 --id i --topic t"
_SERVERS: Final = """\
postgres.dsn = "postgresql://nowhere/shop"
kafka."bootstrap.servers" = "nowhere:9092"
"""


class _Caller:
    """Calls commands with --json in this process, with the shop's contracts."""

    def __init__(self, folder: Path, registry: Double) -> None:
        self._folder, self._registry = folder, registry
        schemas = json.dumps(str(golden.SCHEMAS / "shop"))
        (folder / "settings.toml").write_text(f"avro.schemas = {schemas}\n{_SERVERS}")
        older = json.loads((golden.SCHEMAS / "shop" / "OrderPlaced.avsc").read_text())
        older["fields"][0]["type"] = "long"
        (folder / "older").mkdir()
        (folder / "older" / "OrderPlaced.avsc").write_text(json.dumps(older))

    def __call__(
        self,
        command: str,
        around: Callable[[], Any] = contextlib.nullcontext,
        *,
        url: bool = False,
        against: bool = False,
    ) -> Any:
        """Return the document that a command prints."""
        arguments = ["--config", str(self._folder / "settings.toml")]
        if url:
            arguments += ["--set", f"schema_registry.url={self._registry.url}"]
        arguments += command.split()
        arguments += ["--against", str(self._folder / "older")] if against else []
        hidden = {name: None for name in os.environ if name.startswith("CDC_")}
        with around():
            result = CliRunner(env=hidden).invoke(cli, [*arguments, "--json"], standalone_mode=False)
        if result.exception:
            raise result.exception
        return orjson.loads(result.stdout)


def _status_documents() -> list[Any]:
    at_work, begun = (parse(orjson.dumps(found), "http://127.0.0.1:8080") for found in _reports())
    silent = unknown("cdc_publisher", "outbox", at_work.time, "nothing answers", "start it")
    database = silent.model_copy(
        update={
            "source": "database",
            "notes": ["a note"],
            "slot": silent.slot.model_copy(update={"active_pid": 7}),
            "memory": RecordStatus(confirmed="0/1", age_seconds=1),
            "table": TableStatus(name="outbox", rows=1),
        }
    )
    return [orjson.loads(each.json_line()) for each in (at_work, begun, silent, database)]


def _checking() -> Any:
    found = Finding("wal_level", "postgres", PASS, "logical")
    return patch.object(check_command, "run_checks", return_value=[found, found._replace(fix=("SQL",), hint="hint")])


@contextlib.contextmanager
def _rows_that_do_not_fit() -> Iterator[None]:
    row = SimpleNamespace(id=golden.MARK.slot, type="OrderPlaced")
    with (
        patch.object(contract_set, "connect"),
        patch.object(rows, "read", return_value=[row] * (contract_set.SHOWN + 1)),
        patch.object(rows, "topics", return_value=[]),
        patch.object(contract_set, "misfit", return_value="$.n: is bad"),
    ):
        yield


@contextlib.contextmanager
def _rows_to_infer() -> Iterator[None]:
    found = [rows.OutboxRow("1", "order-placed", b'{"a": null}', False), rows.OutboxRow("2", "Bad", b"", False)]
    counted = {
        str(row.type): TypeRows(1, since) for row, since in zip(found, (None, "2026-01-31T08:00:00Z"), strict=True)
    }
    table = SimpleNamespace(types=lambda _: counted, read=lambda *_: found)
    with patch.object(infer_command, "opened") as opened:
        opened.return_value.__enter__.return_value = table
        yield


@contextlib.contextmanager
def _no_rows() -> Iterator[None]:
    with patch.object(contract_set, "connect"), patch.object(rows, "topics", return_value=[]):
        yield


@contextlib.contextmanager
def _letters() -> Iterator[None]:
    letter = golden.letter()
    known = {name: getattr(letter, name) for name in Entry._fields if hasattr(letter, name)}
    entry = Entry(**known, size=1, partition=0, offset=0, replayed=golden.AT)
    with (
        patch.object(dlq_command, "Cluster"),
        patch.object(dlq_command, "DeadLetterTopic") as topic,
        patch.object(dlq_command, "LetterIndex") as index,
    ):
        index.return_value.entries.return_value = [entry]
        topic.return_value.fetch.return_value = {letter.position: letter}
        yield


@contextlib.contextmanager
def _slots() -> Iterator[None]:
    empty = Slot(
        name="other",
        plugin="pgoutput",
        database="shop",
        active_pid=None,
        confirmed=None,
        lag_bytes=None,
        retained_bytes=None,
        wal_status=None,
        failover=None,
        synced=None,
    )
    ours = replace(
        empty,
        name="cdc_publisher",
        active_pid=7,
        confirmed=LSN(1),
        lag_bytes=1,
        retained_bytes=1,
        wal_status="reserved",
        failover=False,
        synced=False,
    )
    found = [ours, empty]
    with patch.object(slot_command, "connect"), patch.object(slots, "find", return_value=found):
        yield


def _purging() -> Any:
    def purge(outcome: Any) -> Iterator[tuple[int, int]]:
        outcome.due = SimpleNamespace(confirmed=str(LSN(1)), age=SimpleNamespace(clock=None), cutoff=1)
        outcome.dropped, outcome.busy = {"outbox_1": 1}, ["outbox_2"]
        outcome.failed = {"outbox_3": "why"}
        yield 1, 1

    purging = MagicMock()
    purging.return_value.round.side_effect = purge
    return patch.object(purge_command, "Purging", purging)


@contextlib.contextmanager
def _auditing() -> Iterator[None]:
    auditing = MagicMock(stream="0badcafe", counts=dict.fromkeys(COUNTS, 0), names=["outbox.event.order"])
    auditing.notes = [Note("rows", 1, "why")]
    auditing.run.return_value = []
    found = [Found("missing", "id", key, "t", 0, 1, golden.POSITION, "why", 1) for key in (b"o-1", b"\xff", None)]
    auditing.books.findings.return_value = found
    auditing.books.finding_count.return_value = 3
    auditing.books.missing_count.return_value = 0
    with (
        patch.object(audit_command, "Cluster"),
        patch.object(audit_command, "connect"),
        patch.object(audit_command, "Auditing", return_value=auditing),
    ):
        yield


@contextlib.contextmanager
def _stacked() -> Iterator[None]:
    server = SimpleNamespace(version="18", log="log")
    addresses = SimpleNamespace(postgres="postgresql://", kafka="127.0.0.1:9092")
    stack = SimpleNamespace(up=lambda _: addresses, postgres=server, brokers=[server], home="home")
    with patch.object(local_command, "_stack", return_value=stack), patch("signal.signal"):
        yield


def _headers() -> Entries:
    for kind, record in golden.written().items():
        yield from ((f"{kind}: {name}", "" if value is None else "text") for name, value in record.headers)


def _names() -> Entries:
    settings = Settings(kafka={"bootstrap.servers": "nowhere:9092"})
    yield "stream of cluster 7300, timeline 1, slot shop", stream_id("7300", 1, "shop")
    with patch.object(client, "Producer") as producer:
        transactions.producer(settings, "7300/shop")
        yield "transactional id of slot 7300/shop", producer.call_args.args[0]["transactional.id"]
    with patch.object(client, "Producer") as producer:
        destinations: Any = SimpleNamespace(batch_bytes=1)
        ResendProducer(settings, destinations).begin()
        yield "transactional id of a replay", producer.call_args.args[0]["transactional.id"]
    for name, config in (("positions", POSITIONS_CONFIG), ("dead_letter", DEAD_LETTERS_CONFIG)):
        yield from ((f"topic {name}: {key}", str(value)) for key, value in config.items())


def _sql() -> Entries:
    settings = Settings()
    yield "outbox", _one_line(" ".join(create_table(settings)))
    yield "publication", _one_line(create_publication(settings))
    yield "inbox", _one_line(Inbox("billing").sql)


def _one_line(statement: str) -> str:
    return " ".join(statement.split())


def _checks() -> Entries:
    for name, meaning in MEANINGS.items():
        can = ["pass", *(["warn"] if meaning.warns else []), *(["fail"] if meaning.fails else [])]
        yield f"{meaning.side}: {name}", ", ".join(can)


def _library() -> Entries:
    for name in consumer.__all__:
        value = getattr(consumer, name)
        if not inspect.isclass(value):
            yield name, _signature(value) if callable(value) else "|".join(one.__name__ for one in value.__args__)
            continue
        ours = [parent for parent in value.__mro__ if parent.__module__.startswith("cdc.")]
        parents = [parent.__name__ for parent in value.__mro__[1:-1] if not parent.__name__.startswith("_")]
        yield name, " of ".join([_signature(value), *parents[:1]])
        for member in sorted({member for parent in ours for member in vars(parent) if not member.startswith("_")}):
            found = inspect.getattr_static(value, member)
            found = getattr(found, "__func__", found)
            yield f"{name}.{member}", _signature(found) if inspect.isfunction(found) else "value"


def _signature(called: Any) -> str:
    made = [inspect.getattr_static(called, name) for name in ("__init__", "__new__") if inspect.isclass(called)]
    if made and not any(map(inspect.isfunction, made)):
        return "(*args)"  # of an exception that is made as Python's own are
    signature = inspect.signature(called)
    public = [one for one in signature.parameters.values() if not one.name.startswith("_")]
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in public]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def _log_lines() -> Entries:
    fields: dict[str, set[str]] = {}
    for line in lines():
        fields.setdefault(f"{line.event}: {line.level}", set()).update(line.fields)
    return ((name, ", ".join(sorted(found))) for name, found in fields.items())


def _log_fields() -> Entries:
    try:
        raise ValueError
    except ValueError as error:
        trace = (type(error), error, error.__traceback__)
        record = logging.LogRecord("cdc.start", logging.INFO, "", 1, "starting", (), trace)
    record.extra = 1
    return _keys([orjson.loads(Json({"slot": "cdc_publisher"}).format(record))])


SECTIONS: Final[Mapping[str, Callable[[], Entries]]] = {
    "commands": _commands,
    "settings": _settings,
    "kafka properties": _properties,
    "exit codes": _exit_codes,
    "metrics": _metrics,
    "http": _http,
    "status document": _status,
    "json outputs": _json_outputs,
    "record headers": _headers,
    "names": _names,
    "sql": _sql,
    "checks": _checks,
    "consumer library": _library,
    "log lines": _log_lines,
    "log fields": _log_fields,
}


def main() -> None:
    """Write the file, and say what it changes."""
    logging.disable()
    found = surface()
    told = differences(load() if FILE.exists() else {}, found)
    FILE.write_text(text(found))
    print("\n".join(told) or "nothing has changed")


if __name__ == "__main__":
    main()

"""The other programs beside the publisher: how each is started on a backlog, with which settings, and what it sends.

Each is a command that runs until a signal: Debezium in Kafka Connect's standalone mode, mq-bridge in a Python process,
and any other as a command line. Both are set up as their documentation says for throughput, with `acks=all`.
"""

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict

from benchmarks import contestants, processes
from benchmarks.backlog import PUBLICATION, Backlog
from benchmarks.contestants import EXACTLY_ONCE, NATIVE, PYTHON
from benchmarks.workload import AGGREGATE
from tests import debezium

DEBEZIUM: Final = "debezium"
MQ_BRIDGE: Final = "mq-bridge"
OURS: Final = (NATIVE, EXACTLY_ONCE, PYTHON)
_MQ_BRIDGE_MODULE: Final = "mq_bridge"
_HEAP: Final = "-Xmx1g"


@dataclass(frozen=True, slots=True)
class Task:
    """What a program is to do: read the slot, and send to the topics of `prefix`. It may write into `folder`."""

    backlog: Backlog
    slot: str
    prefix: str
    folder: Path

    @property
    def topic(self) -> str:
        """The topic of all events."""
        return f"{self.prefix}.{AGGREGATE}"

    @property
    def values(self) -> dict[str, str]:
        """The values of placeholders in a command line, by their names."""
        given = conninfo_to_dict(self.backlog.dsn)
        postgres = {name: str(given.get(name) or default) for name, default in _POSTGRES.items()}
        user = f"{postgres['user']}:{postgres['password']}" if postgres["password"] else postgres["user"]
        return {
            **postgres,
            "dsn": self.backlog.dsn,
            "url": f"postgres://{user}@{postgres['host']}:{postgres['port']}/{postgres['dbname']}",
            "kafka": self.backlog.servers.kafka,
            "slot": self.slot,
            "publication": PUBLICATION,
            "topic": self.topic,
            "folder": str(self.folder),
        }


_POSTGRES: Final = {"host": "127.0.0.1", "port": "5432", "user": "postgres", "password": "", "dbname": "postgres"}


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, and what it adds to the environment."""

    arguments: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """One program. `sends` says what is in its records, `command` how it is started."""

    name: str
    sends: str
    command: Callable[[Task], Command]


def ours(name: str) -> Peer:
    """Return a variant of the publisher."""
    return Peer(name, "typed Avro, key, three headers", lambda task: _publisher(name, task))


def _publisher(name: str, task: Task) -> Command:
    settings = task.backlog.settings(f"{task.slot}.toml", slot=task.slot, prefix=task.prefix)
    arguments = processes.python("-m", "cdc", "--config", str(settings), "start")
    return Command(arguments, contestants.environment(name))


def given(text: str) -> Peer:
    """Return the peer of an option NAME=COMMAND. Raises ValueError for anything else, and unknown placeholders."""
    name, equals, line = text.partition("=")
    if not (name and equals and line.strip()):
        raise ValueError(f"{text!r} is not NAME=COMMAND")
    shlex.split(line)  # raises ValueError for a quotation mark that is not closed
    return Peer(name, "see its command line", lambda task: Command(_filled(line, task.values)))


def _filled(line: str, values: Mapping[str, str]) -> list[str]:
    return [part.format(**values) for part in shlex.split(line)]


def known(name: str) -> Peer | None:
    """Return a program by its name: a variant of the publisher, Debezium or mq-bridge."""
    if name in OURS:
        return ours(name)
    return _KNOWN.get(name)


def absent(name: str) -> str:
    """Return why a program cannot run here; empty if it can."""
    if name == MQ_BRIDGE and find_spec(_MQ_BRIDGE_MODULE) is None:
        return f"it is not installed: pip install {MQ_BRIDGE}"
    return contestants.absent(name)


def _debezium(task: Task) -> Command:
    """Run Connect with the outbox event router.

    Batches and queues are ten times their defaults; records linger for as long as the publisher's do.
    <https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html>
    """
    values = task.values
    router = "transforms.outbox."
    text = "org.apache.kafka.connect.storage.StringConverter"
    worker = {
        "bootstrap.servers": values["kafka"],
        "key.converter": text,
        "value.converter": text,
        "plugin.path": str(debezium.plugins(task.folder)),
        "plugin.discovery": "service_load",
        "offset.storage.file.filename": str(task.folder / "offsets"),
        "offset.flush.interval.ms": "1000",
        "listeners": "http://127.0.0.1:0",
        "producer.linger.ms": "10",
        "producer.batch.size": "1000000",
        "producer.buffer.memory": "67108864",
    }
    connector = {
        "name": task.slot,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": values["host"],
        "database.port": values["port"],
        "database.user": values["user"],
        "database.password": values["password"],
        "database.dbname": values["dbname"],
        "topic.prefix": task.slot,
        "plugin.name": "pgoutput",
        "slot.name": task.slot,
        "publication.name": PUBLICATION,
        "publication.autocreate.mode": "disabled",
        "table.include.list": "public.outbox",
        "snapshot.mode": "no_data",
        "tombstones.on.delete": "false",
        "max.batch.size": "20480",
        "max.queue.size": "81920",
        "poll.interval.ms": "10",
        "transforms": "outbox",
        f"{router}type": "io.debezium.transforms.outbox.EventRouter",
        f"{router}route.topic.replacement": f"{task.prefix}.${{routedByValue}}",
        f"{router}table.fields.additional.placement": "type:header:eventType",
    }
    files = [_properties(task.folder / "worker.properties", worker)]
    files.append(_properties(task.folder / "connector.properties", connector))
    return Command(*debezium.standalone(task.folder, files, _HEAP))


def _properties(file: Path, properties: Mapping[str, str]) -> Path:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return file


def _mq_bridge(task: Task) -> Command:
    """Run one route, from the slot to the topic, with batches of 4,096 messages instead of 512."""
    values = task.values
    route: dict[str, Any] = {
        "input": {
            "postgres_cdc": {
                "url": values["url"],
                "publication": PUBLICATION,
                "slot_name": task.slot,
                "create_slot": False,
                "status_interval_ms": 1000,
            }
        },
        "output": {
            "kafka": {
                "url": values["kafka"],
                "topic": task.topic,
                "create_topic": False,
                "partition_key": "aggregateid",
                "producer_options": [["linger.ms", "10"], ["batch.size", "1000000"], ["acks", "all"]],
            }
        },
        "batch_size": 4096,
    }
    file = task.folder / "route.json"
    file.write_text(json.dumps(route))
    return Command([sys.executable, "-c", _RUN_ROUTE, str(file)])


_RUN_ROUTE: Final = """
import json, mq_bridge, signal, sys
mq_bridge.init_logging()
signal.signal(signal.SIGTERM, lambda *_: mq_bridge.request_shutdown())
with open(sys.argv[1]) as file:
    mq_bridge.Route.from_config(json.load(file), "outbox").run()
"""

_KNOWN: Final = {
    DEBEZIUM: Peer(DEBEZIUM, "the payload as JSON text, key, two headers", _debezium),
    MQ_BRIDGE: Peer(MQ_BRIDGE, "the whole row as JSON, key", _mq_bridge),
}

"""Local Apache Kafka brokers, each a combined KRaft broker and controller.

https://kafka.apache.org/41/configuration/broker-configs/
"""

import base64
import functools
import os
import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from confluent_kafka import KafkaException

from cdc.errors import LocalStackError
from cdc.kafka.client import admin_client
from cdc.local import packages, processes
from cdc.local.ports import Ports

START_SECONDS = 90
FORMAT_SECONDS = 60
FREEZE_SECONDS = 5
# The last brokers of a quorum cannot report their shutdown to a controller and would take minutes.
TERM = ((signal.SIGTERM, 10.0), *processes.KILL)

JAVA = (
    "-Xmx512m",
    "-XX:+UseSerialGC",  # shares few cores with PostgreSQL and the publisher
    "-XX:-UsePerfData",  # leaves nothing in /tmp
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",  # compression libraries; Java 24+ warns
)
LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server
logger.server.level = info
logger.config.name = kafka.server.KafkaConfig
logger.config.level = warn
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A member of the cluster, with the ports of its two listeners on 127.0.0.1."""

    node_id: int
    port: int
    controller_port: int


def properties(node: Node, nodes: Sequence[Node], data: Path, advertised: str | None = None) -> dict[str, str]:
    """Return the server properties of `node` in a cluster of `nodes`.

    `advertised` is the host:port that clients get instead of the listener's, for a proxy in between.
    """
    replicas = str(len(nodes))
    in_sync = str(len(nodes) // 2 + 1)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": ",".join(f"{n.node_id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{advertised or f'127.0.0.1:{node.port}'}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": replicas,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": replicas,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        # The default of 128 MB is a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": "16777216",
        # How long a dead broker counts as alive and blocks its restart; 30 and 9 seconds by default.
        "replica.lag.time.max.ms": "3000",
        "broker.session.timeout.ms": "6000",
    }


class KafkaBroker:
    """One Kafka node with its files in `home`/kafka-`node_id`; the numbers are 1 to `brokers`."""

    def __init__(self, home: Path, node_id: int, brokers: int = 1) -> None:
        self.home = Path(os.path.realpath(home))
        self.node_id = node_id
        self.folder = self.home / f"kafka-{node_id}"
        self.log = self.folder / "kafka.log"
        self.data = self.folder / "data"
        self.advertised: str | None = None  # host:port of a proxy; takes effect at the next start
        self.settings: dict[str, str] = {}  # more server properties, which override the default ones
        self._brokers = brokers
        self._ports = Ports(self.home / "ports.json")

    @property
    def node(self) -> Node:
        return self._node(self.node_id)

    @property
    def address(self) -> str:
        """host:port of the broker itself, even if another one is advertised."""
        return f"127.0.0.1:{self.node.port}"

    @property
    def cluster_id(self) -> str:
        """The cluster id of all brokers of a home: 16 bytes as 22 characters."""
        text = base64.urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_URL, str(self.home)).bytes).decode().rstrip("=")
        # Kafka's tool parses an id that begins with "-" as an option.
        return text.replace("-", "A", 1) if text.startswith("-") else text

    @property
    def process(self) -> psutil.Process | None:
        found = processes.find("java", *self._marks(str(self.node_id)))
        return found[0] if found else None

    @property
    def pid(self) -> int | None:
        process = self.process
        return process.pid if process else None

    def start(self) -> None:
        """Start the broker unless it runs, and wait until it responds. Raises LocalStackError."""
        processes.finish(self.starting(packages.kafka()))

    def stop(self) -> bool:
        """Stop with SIGTERM, and SIGKILL after 10 s. Returns whether it was running."""
        return self._end(TERM)

    def kill(self) -> bool:
        """Stop with SIGKILL. Returns whether it was running."""
        return self._end(processes.KILL)

    def freeze(self) -> None:
        """Send SIGSTOP: connections stay open without a response. Raises LocalStackError if it is not running."""
        process = self._running()
        process.suspend()
        # The signal takes effect thread by thread; wait for the last one.
        stopped = functools.partial(_is_stopped, process)
        processes.finish(processes.waiting(stopped, FREEZE_SECONDS, "Kafka did not freeze", self.log))

    def thaw(self) -> None:
        """Send SIGCONT. Raises LocalStackError if it is not running."""
        self._running().resume()

    def _running(self) -> psutil.Process:
        if process := self.process:
            return process
        raise LocalStackError(f"Kafka broker {self.node_id} is not running")

    def _end(self, steps: tuple[processes.Step, ...]) -> bool:
        was_running = self.process is not None
        processes.finish(self.stopping(steps))
        return was_running

    def stopping(self, steps: tuple[processes.Step, ...] = TERM) -> Iterator[None]:
        """Do the same as `stop`, as a task for `processes.finish`; also end the formatting of a killed start."""
        process = self.process
        yield from processes.stopping([process] if process else [], steps)
        yield from self._clear()

    def starting(self, classpath: Sequence[Path]) -> Iterator[None]:
        """Do the same as `start`, as a task for `processes.finish`."""
        process, begin = self.process, processes.size(self.log)
        if process is None:
            yield from self._clear()
            env = self._environment(classpath)
            if not self.data.exists():
                yield from self._format(env)
            begin = processes.size(self.log)
            file = self._write("server.properties", self._properties(self.data))
            command = self._java(str(self.node_id), "kafka.Kafka", str(file))
            process = processes.launch(command, log=self.log, env=env)
        yield from self._answering(process, begin)

    def _answering(self, process: psutil.Process, begin: int) -> Iterator[None]:
        client = admin_client({"bootstrap.servers": self.address})

        def answers() -> bool:
            nonlocal client
            if not processes.is_running(process):
                why = processes.reason(self.log, begin)
                raise LocalStackError(f"Kafka broker {self.node_id} died while starting: {why}", f"see {self.log}")
            try:
                metadata = client.list_topics(timeout=0.5)
            except KafkaException:
                # A client that has learned advertised addresses asks only those, even if none of them can be reached.
                client = admin_client({"bootstrap.servers": self.address})
                return False
            # Compare the cluster id, because another Kafka may have taken the port in the meantime.
            # (str() gives that id; the attribute is wrongly declared as None.)
            return str(metadata) == self.cluster_id and self.node_id in metadata.brokers

        complaint = f"Kafka broker {self.node_id} did not respond"
        yield from processes.waiting(answers, START_SECONDS, complaint, self.log)

    def _format(self, env: Mapping[str, str]) -> Iterator[None]:
        """Format a temporary folder, then rename it, so that a data folder is complete or missing."""
        draft = self.folder / "data.new"
        processes.remove(draft)
        yield from self._run_storage_tool(draft, env)
        draft.rename(self.data)

    def _run_storage_tool(self, draft: Path, env: Mapping[str, str]) -> Iterator[None]:
        file = self._write("format.properties", self._properties(draft))
        arguments = ["format", "--cluster-id", self.cluster_id, "--config", str(file)]
        command = self._java(f"format-{self.node_id}", "kafka.tools.StorageTool", *arguments)
        yield from processes.running(command, log=self.log, env=env, seconds=FORMAT_SECONDS)

    def _clear(self) -> Iterator[None]:
        yield from processes.stopping(processes.find("java", *self._marks(f"format-{self.node_id}")), processes.KILL)

    def _node(self, node_id: int) -> Node:
        ports = self._ports
        return Node(node_id, ports.get(f"kafka-{node_id}"), ports.get(f"controller-{node_id}"))

    def _properties(self, data: Path) -> Mapping[str, str]:
        nodes = [self._node(node_id) for node_id in range(1, self._brokers + 1)]
        return {**properties(self.node, nodes, data, self.advertised), **self.settings}

    def _marks(self, task: str) -> list[str]:
        """Return arguments that identify own Java processes; see processes.find."""
        return [f"-Dcdc.local.home={self.home}", f"-Dcdc.local.task={task}"]

    def _java(self, task: str, *arguments: str) -> list[str]:
        temporary = self.folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        log4j = self.folder / "log4j2.properties"
        log4j.write_text(LOG4J)
        system = [f"-Djava.io.tmpdir={temporary}", f"-Dlog4j2.configurationFile={log4j}"]
        return [str(packages.java()), *JAVA, *system, *self._marks(task), *arguments]

    def _environment(self, classpath: Sequence[Path]) -> dict[str, str]:
        # In the environment, because it would fill the command line in `ps`.
        environment = processes.environment(without="JAVA_ JDK_JAVA_ _JAVA_ CLASSPATH KAFKA_ LOG4J_")
        return {**environment, "CLASSPATH": ":".join(map(str, classpath))}

    def _write(self, name: str, content: Mapping[str, str]) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{key}={value}\n" for key, value in content.items()))
        return file


def _is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)

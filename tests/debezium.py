"""A real Kafka Connect with Debezium's PostgreSQL connector, from Maven Central like the local stack's Kafka."""

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cdc.local import maven, packages
from cdc.local.kafka import LOG4J
from tests.ports import free_port
from tests.servers import CACHE

CONNECT_VERSION: Final = packages.KAFKA_VERSION
DEBEZIUM_VERSION: Final = os.environ.get("CDC_TEST_DEBEZIUM", "3.6.1.Final")
_CONNECT: Final = (
    f"org.apache.kafka:connect-runtime:{CONNECT_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
    "org.apache.logging.log4j:log4j-api:2.24.3",
    "org.apache.logging.log4j:log4j-core:2.24.3",
)
_DEBEZIUM: Final = (f"io.debezium:debezium-connector-postgres:{DEBEZIUM_VERSION}",)
START_SECONDS: Final = 400.0


def _jars(name: str, coordinates: tuple[str, ...]) -> list[Path]:
    """Return the jars of coordinates, downloaded once."""
    folder = CACHE / "debezium"
    index = folder / f"{name}.json"
    if index.exists():
        known = json.loads(index.read_text())
        jars = [Path(jar) for jar in known["jars"]]
        if known["coordinates"] == list(coordinates) and all(jar.exists() for jar in jars):
            return jars
    folder.mkdir(parents=True, exist_ok=True)
    jars = maven.download(coordinates, folder / "jars", name, None)
    index.write_text(json.dumps({"coordinates": coordinates, "jars": [str(jar) for jar in jars]}))
    return jars


def plugins(folder: Path) -> Path:
    """Return a folder below `folder` that holds the connector, as `plugin.path` takes it."""
    plugin = folder / "plugins" / "debezium"
    if not plugin.exists():
        plugin.mkdir(parents=True)
        for jar in _jars("debezium", _DEBEZIUM):
            if not jar.name.startswith(("connect-api", "kafka-clients", "slf4j-api")):
                shutil.copyfile(jar, plugin / jar.name)
    return plugin.parent


def standalone(folder: Path, files: Sequence[Path], *options: str) -> tuple[list[str], dict[str, str]]:
    """Return a command that runs one worker with connectors until a signal, and its environment.

    `files` are the properties of the worker and of each connector, `options` those of Java.
    """
    return _command(folder, "ConnectStandalone", files, options)


def _command(
    folder: Path, program: str, files: Sequence[Path], options: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    (folder / "log4j2.properties").write_text(LOG4J)
    command = [
        str(packages.java()),
        *options,
        "-XX:-UsePerfData",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        f"org.apache.kafka.connect.cli.{program}",
        *map(str, files),
    ]
    return command, {"CLASSPATH": ":".join(map(str, _jars("connect", _CONNECT)))}


class Connect:
    """One distributed worker; `flush_seconds` is how often it stores offsets."""

    def __init__(self, folder: Path, bootstrap: str, name: str, flush_seconds: float = 60, **properties: str) -> None:
        self.folder = folder
        self.log = folder / "connect.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.properties = {
            "bootstrap.servers": bootstrap,
            "group.id": f"connect-{name}",
            "config.storage.topic": f"connect-{name}-configs",
            "offset.storage.topic": f"connect-{name}-offsets",
            "status.storage.topic": f"connect-{name}-status",
            **{f"{each}.storage.replication.factor": "1" for each in ("config", "offset", "status")},
            "offset.storage.partitions": "1",
            "status.storage.partitions": "1",
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "listeners": self.url,
            "rest.advertised.host.name": "127.0.0.1",
            "plugin.path": str(folder / "plugins"),
            "plugin.discovery": "service_load",
            "offset.flush.interval.ms": str(int(flush_seconds * 1000)),
            "connector.client.config.override.policy": "All",
            **{each.replace("_", "."): value for each, value in properties.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether the worker was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def worker_file(self) -> Path:
        """The worker's properties file."""
        return self.folder / "worker.properties"

    def start(self) -> None:
        """Start the worker and wait until it answers."""
        plugins(self.folder)
        self.worker_file.write_text("".join(f"{key}={value}\n" for key, value in self.properties.items()))
        options = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        command, environment = _command(self.folder, "ConnectDistributed", [self.worker_file], options)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait(lambda: self.ask("GET", "/connectors")[0] == 200, "Connect does not answer", START_SECONDS)

    def kill(self) -> None:
        """End the worker with SIGKILL."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    stop = kill

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request; returns the status, 0 without an answer, and the JSON of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None
        except (OSError, http.client.HTTPException, ValueError):  # while it starts, its pages are HTML
            return 0, None
        finally:
            connection.close()

    def create(self, name: str, config: Mapping[str, str]) -> None:
        """Create a connector and wait until its task runs."""
        status, answer = self.ask("POST", "/connectors", {"name": name, "config": config})
        assert status == 201, answer
        self.wait_for(name, "RUNNING")

    def state(self, name: str) -> tuple[str, list[str]]:
        """Return the states of a connector and of its tasks."""
        status, answer = self.ask("GET", f"/connectors/{name}/status")
        if status != 200:
            return str(status), []
        return answer["connector"]["state"], [task["state"] for task in answer["tasks"]]

    def wait_for(self, name: str, state: str, seconds: float = 300) -> None:
        """Wait until a connector, and its task if it is to run, has a state."""

        def has_state() -> bool:
            connector, tasks = self.state(name)
            assert "FAILED" not in tasks, self.ask("GET", f"/connectors/{name}/status")[1]
            return connector == state and (tasks == ["RUNNING"] or state != "RUNNING")

        self._wait(has_state, f"connector {name} is not {state}", seconds)

    def _wait(self, done: Any, complaint: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            died = self._process is None or self._process.poll() is not None
            if died or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-3000:]
                raise AssertionError(f"{complaint}{' (it ended)' if died else ''}: {tail}")
            time.sleep(0.2)

"""Servers and publisher of the demo, set up as by `outbox init` and `slot create`.

All files are in one home folder, apart from that of `local up`. Each demo starts without data.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final, Self, TextIO

import psutil
from confluent_kafka import KafkaException
from rich.console import Console

from cdc.avro.files import shipped
from cdc.config import loading
from cdc.config.settings import Settings, Value
from cdc.demo import shop
from cdc.errors import CdcError, LocalStackError
from cdc.kafka.cluster import Cluster
from cdc.kafka.errors import kafka_error
from cdc.local import packages, processes
from cdc.local.stack import Addresses, Stack
from cdc.postgres import outbox_table, slots
from cdc.postgres.connection import connect

PARTITIONS: Final = 3
_READY_SECONDS: Final = 30.0
_LOG_LINES: Final = 12
_STOP: Final = ((signal.SIGTERM, 30.0), *processes.KILL)


class Environment:
    """The demo's servers and publisher in `home`; a context manager that stops them unless `kept`.

    `value` is the kind of values that the publisher sends.
    """

    def __init__(self, home: Path | None = None, value: Value = "avro") -> None:
        self._value = value
        self.home = Path(os.path.realpath(home or packages.cache() / "demo"))
        self.log = self.home / "publisher.log"
        self.config = self.home / "cdc-publisher.toml"
        self.stack = Stack(self.home / "stack", brokers=1)
        self.kept = False
        self.keep_files = False  # for analysis of a failure
        self._lock: TextIO | None = None

    def __enter__(self) -> Self:
        """Lock and clear the home folder. Raises LocalStackError while another demo runs there."""
        self._lock = self._claim()
        self.clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop everything unless `kept`; remove files except after an error or with `keep_files`."""
        ignore_signals()
        failed = kind is not None and kind is not KeyboardInterrupt
        if failed or not self.kept:
            self.clear(purge=not (failed or self.keep_files))
        if self._lock:
            self._lock.close()

    def stop(self) -> bool:
        """Stop an earlier demo and remove its data. Returns whether anything was running."""
        if not self.home.exists():
            return False
        with self._claim():
            return self.clear()

    def clear(self, *, purge: bool = True) -> bool:
        """Stop servers and publisher, and with `purge` remove their files. Returns whether anything was running."""
        left = self._publishers()
        processes.finish(processes.stopping(left, _STOP))
        ran = self.stack.down(purge=purge)
        if purge:
            self.log.unlink(missing_ok=True)
            self.config.unlink(missing_ok=True)
        return ran or bool(left)

    def up(self, console: Console) -> tuple[Addresses, Settings]:
        """Start the servers and create the outbox, its publication, the slot and the topics."""
        addresses = self.stack.up(console)
        self.config.write_text(_toml(addresses, shipped("shop"), self._value))
        settings = loading.load(self.config, environ={})
        with connect(settings.postgres.dsn) as connection:
            outbox_table.execute(connection, outbox_table.missing(connection, settings))
            slots.create(connection, settings.postgres.slot)
        cluster = Cluster(settings.kafka)
        cluster.ensure_own_topics(settings.topics)
        for topic in topics():
            try:
                cluster.create(topic, settings.topics, settings.topics.config).result()
            except KafkaException as error:
                raise kafka_error(error.args[0], f"creating topic {topic!r}") from None
        return addresses, settings

    def publish(self, settings: Settings) -> psutil.Process:
        """Start the publisher in a process of its own, and wait until it reads the slot."""
        # The user's settings must not override the demo's.
        env = processes.environment(without="CDC_ PG")
        command = [sys.executable, "-m", "cdc", "--config", str(self.config), "start"]
        publisher = processes.launch(command, log=self.log, env=env)
        deadline = time.monotonic() + _READY_SECONDS
        with connect(settings.postgres.dsn) as connection:
            while slots.get(connection, settings.postgres.slot).active_pid is None:
                self.require(publisher)
                if time.monotonic() > deadline:
                    raise self._failed(
                        f"the publisher did not start reading its slot within {_READY_SECONDS:.0f} seconds"
                    )
                time.sleep(0.05)
        return publisher

    def require(self, publisher: psutil.Process) -> None:
        """Raise CdcError with the last lines of the publisher's log if it has exited."""
        if not processes.is_running(publisher):
            raise self._failed("the publisher exited unexpectedly")

    def _failed(self, message: str) -> CdcError:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if self.log.exists() else []
        error = CdcError(message, f"see {self.log}")
        for line in lines or ["(its log is empty)"]:
            error.add_note(line)
        return error

    def _publishers(self) -> list[psutil.Process]:
        """Return publishers of an earlier demo that was kept or killed."""
        names = {
            Path(sys.executable).name,
            "python",
            "python3",
        }  # it may have been started from another virtual environment
        return [found for name in names for found in processes.find(name, "cdc", "start", str(self.config))]

    def _claim(self) -> TextIO:
        self.home.mkdir(parents=True, exist_ok=True)
        lock = (self.home / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise LocalStackError(f"another demo runs in {self.home}", "wait until it ends") from None
        return lock


def topics() -> list[str]:
    """Return the topics of the shop's events."""
    return [f"outbox.event.{aggregate}" for aggregate in shop.AGGREGATES]


def ignore_signals() -> None:
    """Ignore further signals, so that the shutdown of servers completes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _toml(addresses: Addresses, schemas: Path, value: Value) -> str:
    # JSON strings are valid TOML. CreateTime: a record's timestamp must remain its commit time. There is one broker,
    # so warnings about replication are disabled.
    return f"""\
[postgres]
dsn = {json.dumps(addresses.postgres)}
slot = "shop"
publication = "shop"

[kafka]
"bootstrap.servers" = {json.dumps(addresses.kafka)}

[topics]
partitions = {PARTITIONS}
config = {{ "message.timestamp.type" = "CreateTime" }}
replication = "any"

[record]
value = {json.dumps(value)}

[avro]
schemas = {json.dumps(str(schemas))}
"""

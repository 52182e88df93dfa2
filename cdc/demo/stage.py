"""The stage: servers of the demo's own, made ready with the functions behind `outbox init` and `slot create`.

Everything is below one home folder, which no `local up` ever uses; each demo starts from nothing.
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
from cdc.config.settings import Settings
from cdc.demo import shop
from cdc.errors import CdcError, LocalStackError
from cdc.kafka.cluster import Cluster
from cdc.kafka.errors import kafka_error
from cdc.local import packages, processes
from cdc.local.stack import Addresses, Stack
from cdc.postgres import outbox_table as table
from cdc.postgres import slots
from cdc.postgres.connection import connect

PARTITIONS: Final = 3
_READY_SECONDS: Final = 30.0
_LOG_LINES: Final = 12
_STOP: Final = ((signal.SIGTERM, 30.0), *processes.KILL)


class Stage:
    """The demo's servers and publisher in `home`; a context that takes down what it put up unless `kept`."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = Path(os.path.realpath(home or packages.cache() / "demo"))
        self.log = self.home / "publisher.log"
        self.config = self.home / "cdc-publisher.toml"
        self.stack = Stack(self.home / "stack", brokers=1)
        self.kept = False
        self.evidence = False  # keep the files: something is to be looked at
        self._lock: TextIO | None = None

    def __enter__(self) -> Self:
        """Claim the home and clear it. Raises LocalStackError while another demo runs there."""
        self._lock = self._claim()
        self.clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop everything; files stay only for an error or when asked for."""
        deafen()
        failed = kind is not None and kind is not KeyboardInterrupt
        if failed or not self.kept:
            self.clear(purge=not (failed or self.evidence))
        if self._lock:
            self._lock.close()

    def stop(self) -> bool:
        """Stop what an earlier demo left running and remove its data; True when something ran."""
        if not self.home.exists():
            return False
        with self._claim():
            return self.clear()

    def clear(self, *, purge: bool = True) -> bool:
        """Stop what runs, and remove its files with `purge`; True when something ran."""
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
        self.config.write_text(_toml(addresses, shipped("shop")))
        settings = loading.load(self.config, environ={})
        with connect(settings.postgres.dsn) as connection:
            table.execute(connection, table.missing(connection, settings))
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
        """Start the publisher as a user would, and wait until it reads the slot."""
        # The user's own settings must not win over the demo's.
        env = processes.environment(without="CDC_ PG")
        command = [sys.executable, "-m", "cdc", "--config", str(self.config), "start"]
        publisher = processes.launch(command, log=self.log, env=env)
        deadline = time.monotonic() + _READY_SECONDS
        with connect(settings.postgres.dsn) as connection:
            while slots.get(connection, settings.postgres.slot).active_pid is None:
                self.require(publisher)
                if time.monotonic() > deadline:
                    raise self._failed(f"the publisher does not read its slot within {_READY_SECONDS:.0f} seconds")
                time.sleep(0.05)
        return publisher

    def require(self, publisher: psutil.Process) -> None:
        """Raises CdcError with the last lines of its log when the publisher does not run any more."""
        if not processes.is_running(publisher):
            raise self._failed("the publisher has ended by itself")

    def _failed(self, message: str) -> CdcError:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if self.log.exists() else []
        error = CdcError(message, f"its log is {self.log}")
        for line in lines or ["(its log is empty)"]:
            error.add_note(line)
        return error

    def _publishers(self) -> list[psutil.Process]:
        """What a demo that was kept, or killed, left running."""
        names = {Path(sys.executable).name, "python", "python3"}  # another environment may have started it
        return [found for name in names for found in processes.find(name, "cdc", "start", str(self.config))]

    def _claim(self) -> TextIO:
        self.home.mkdir(parents=True, exist_ok=True)
        lock = (self.home / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise LocalStackError(f"another demo runs in {self.home}", "wait for its end") from None
        return lock


def topics() -> list[str]:
    """The topics of the shop's events."""
    return [f"outbox.event.{aggregate}" for aggregate in shop.AGGREGATES]


def deafen() -> None:
    """Ignore further signals: what is being taken down must not be left half-way."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _toml(addresses: Addresses, schemas: Path) -> str:
    # JSON's strings are TOML's too. CreateTime: a record's timestamp must stay the time of its commit. There is one
    # broker, so of replication nothing is left to be told.
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

[avro]
schemas = {json.dumps(str(schemas))}
"""

"""A consumer in a process of its own, which dies where it is told to.

A handled event is a row in the table `applied`, which has no unique key: what is applied twice is there twice.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from cdc.consumer import Consumer, Event, Inbox, Retry
from tests import forking


class CrashingInbox(Inbox):
    """Kills its process once the transaction of an event is committed, where it is told to."""

    def __init__(self, consumer: str, crashes: "Crashes") -> None:
        super().__init__(consumer)
        self._crashes = crashes

    @contextmanager
    def event(self, connection: Any, event_id: Any, *, nested: bool = False) -> Iterator[bool]:
        with super().event(connection, event_id, nested=nested) as new:
            yield new
        self._crashes.at("committed", str(event_id))


@dataclass(frozen=True, slots=True)
class Crashes:
    """Where to die, each once: names of files in a folder, `{step} {event id}`."""

    folder: Path

    def plan(self, step: str, event_id: str) -> None:
        (self.folder / f"{step} {event_id}").touch()

    def at(self, step: str, event_id: str) -> None:
        planned = self.folder / f"{step} {event_id}"
        if planned.exists():
            planned.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def left(self) -> list[str]:
        return [file.name for file in self.folder.iterdir()]


def start(options: dict[str, Any], log: Path) -> forking.Forked:
    """A consumer in another process; see `main` for what the options are."""
    with log.open("ab") as output:
        return forking.start([json.dumps(options)], output.fileno(), output.fileno(), module=__name__)


def main() -> None:
    """Consume until SIGTERM, as the options in the argument say."""
    options = json.loads(sys.argv[1])
    crashes = Crashes(Path(options["crashes"]))
    worker = options["worker"]

    def handle(event: Event, connection: "psycopg.Connection[Any]") -> None:
        assert event.position
        connection.execute(
            "insert into applied (id, key, seq, worker) values (%s, %s, %s, %s)",
            [event.id, (event.key or b"").decode(), event.position.commit_lsn, worker],
        )
        crashes.at("written", event.id or "")

    consumer = Consumer(
        options["kafka"],
        [options["topic"]],
        handle,
        inbox=CrashingInbox("tests", crashes),
        connect=lambda: psycopg.connect(options["dsn"]),
        retry=Retry(attempts=3, first_seconds=0.01, longest_seconds=0.05),
        commit_seconds=options.get("commit_seconds", 0.2),
    )
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    consumer.run()

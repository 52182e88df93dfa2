"""`slot create --backfill` of a long table while a writer continues: time and memory, and every row once, in order."""

import contextlib
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import psycopg

from benchmarks import backlog, processes, records
from benchmarks.backlog import Backlog
from benchmarks.memory import growth
from benchmarks.program import program
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import Workload

_SAMPLE_SECONDS: Final = 0.2
_BETWEEN_SECONDS: Final = 0.02  # transactions of the writer


class Writer:
    """A thread that commits more rows of a backlog, with numbers that follow its own."""

    def __init__(self, rows: Backlog) -> None:
        self.last = rows.workload.events
        self._rows = rows
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, name="writer")
        self._error: Exception | None = None

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _write(self) -> None:
        given = self._rows.workload
        try:
            with psycopg.connect(self._rows.dsn, autocommit=True) as connection:
                while not self._stop.wait(_BETWEEN_SECONDS):
                    connection.execute(backlog.insertion(given, self.last + 1, self.last + given.rows).encode())
                    self.last += given.rows
        except psycopg.Error as error:
            self._error = error


def measure(servers: Servers, screen: Screen, events: int) -> dict[str, Any]:
    """Measure one verified backfill of a table of so many rows, in s and MB."""
    workload = Workload(events)
    with screen.bar(f"building {events:,} rows") as bar, backlog.backlog(servers, workload, bar) as rows:
        prefix = f"bench-{rows.token}-{secrets.token_hex(4)}"
        topic = records.create_topic(servers.kafka, prefix, workload.partitions)
        try:
            with screen.bar(f"publishing {events:,} rows"):
                found, written = _published(rows, prefix)
            arrived = records.read_back(servers.kafka, topic, workload.partitions, by_id=True)
            records.verify(arrived, rows, events + written)
        finally:
            records.delete_topic(servers.kafka, topic)
    screen.say(
        f"  {events:,} rows in {found['seconds']:.0f} s, and {written:,} that were written meanwhile:"
        f" peak {found['peak_mb']:.0f} MB, {found['growth_mb']:+.1f} MB from the second quarter to the last"
    )
    return {"workload": asdict(workload), "written": written, **found}


def _published(rows: Backlog, prefix: str) -> tuple[dict[str, Any], int]:
    """Backfill, and stream what was written meanwhile; return the figures, and how many rows were written."""
    slot = f"bench_{rows.token}_backfill"
    settings = rows.settings("backfill.toml", slot=slot, prefix=prefix)
    with Writer(rows) as writer:
        before = writer.last
        found = _backfill(rows, str(settings))
        found["written_meanwhile"] = writer.last - before
        with program(rows, slot, prefix, {}) as running:
            running.streaming_after()
            writer.__exit__()
            running.wait_until(rows.position())
            running.stop()
    return found, writer.last - before


def _backfill(rows: Backlog, settings: str) -> dict[str, Any]:
    command = processes.python("-m", "cdc", "--config", settings, "slot", "create", "--backfill", "--yes")
    began = time.monotonic()
    with (rows.folder / "backfill.log").open("wb+") as log:
        process = subprocess.Popen(command, cwd=rows.folder, env=processes.environment(), stdout=log, stderr=log)
        peak, resident = 0, [(0.0, 0.0)]
        with _ended(process):
            while process.poll() is None:
                peak = max(peak, processes.peak_bytes(process.pid))
                resident.append((round(time.monotonic() - began, 2), processes.resident_bytes(process.pid) / 1e6))
                time.sleep(_SAMPLE_SECONDS)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"the backfill ended with {process.returncode}: {log.read().decode()[-2000:]}")
    seconds = time.monotonic() - began
    return {
        "seconds": seconds,
        "rate": rows.workload.events / seconds,
        "peak_mb": peak / 1e6,
        "growth_mb": growth([size for _, size in resident if size]),
        "samples": resident,
    }


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

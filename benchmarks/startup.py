"""Time from the start of the process to the first event in Kafka, with events waiting."""

import os
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import contestants, figures, processes, records
from benchmarks.backlog import Backlog, backlog
from benchmarks.program import program
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import PARTITIONS, Workload

EVENTS: Final = 10


def measure(servers: Servers, screen: Screen, times: int, name: str) -> dict[str, Any]:
    """Measure warm and cold starts: seconds until `streaming` is logged, and until the first append."""
    extra = contestants.environment(name)
    with backlog(servers, Workload(EVENTS)) as rows:
        contestants.idle_cpu(rows, name)
        found = {}
        for kind in ("warm", "cold"):
            with screen.bar(f"{kind} start"):
                runs = [_cold(rows, extra) if kind == "cold" else _once(rows, extra) for _ in range(times)]
            found[kind] = {
                part: figures.spread([run[part] for run in runs])._asdict() for part in ("streaming", "first_event")
            }
            screen.say(f"  {kind} start: {line(found[kind])}")
    return found


def line(result: Mapping[str, Mapping[str, float]]) -> str:
    streaming, first = result["streaming"], result["first_event"]
    return (
        f"streaming after {streaming['median']:.2f} s, first event after {first['median']:.2f} s"
        f" ({first['lowest']:.2f} to {first['highest']:.2f})"
    )


def _once(rows: Backlog, extra: Mapping[str, str]) -> dict[str, float]:
    kafka, prefix = rows.servers.kafka, f"bench-{rows.token}-{secrets.token_hex(4)}"
    topic = records.create_topic(kafka, prefix, PARTITIONS)
    try:
        with rows.slot() as slot, program(rows, slot, prefix, extra) as running:
            streaming = running.streaming_after()
            running.wait_until(rows.end)
            running.stop()
        found = records.read_back(kafka, topic, PARTITIONS)
        records.verify(found, rows)
    finally:
        records.delete_topic(kafka, topic)
    return {"streaming": streaming, "first_event": min(found.appended) / 1000 - running.started}


def _cold(rows: Backlog, extra: Mapping[str, str]) -> dict[str, float]:
    """Measure one start in the state after installation: no bytecode, and an empty file cache where possible."""
    bytecode = rows.folder / f"bytecode-{secrets.token_hex(4)}"
    for file in _program_files():
        _evict(file)
    try:
        return _once(rows, {**extra, "PYTHONPYCACHEPREFIX": str(bytecode)})
    finally:
        shutil.rmtree(bytecode, ignore_errors=True)


def _program_files() -> Iterator[Path]:
    paths = sysconfig.get_paths()
    for folder in {paths["stdlib"], paths["platlib"], paths["purelib"], f"{processes.ROOT}/cdc"}:
        yield from (path for path in Path(folder).rglob("*") if path.is_file())
    yield Path(os.path.realpath(sys.executable))


def _evict(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)

"""Runs of contestants that only read: the ceiling, and pg_recvlogical."""

import json
import subprocess
import time

import psutil

from benchmarks import ceiling, processes, recvlogical
from benchmarks.backlog import PUBLICATION, Backlog
from benchmarks.runs import Run, per_event

_SAMPLE_SECONDS = 0.05


def run_ceiling(name: str, backlog: Backlog, wait_us: int) -> Run:
    """Run the discarding reader, which sleeps `wait_us` microseconds when no data is available."""
    events = backlog.workload.events
    with backlog.slot() as slot:
        started = time.time()
        arguments = [backlog.dsn, slot, str(events), str(wait_us)]
        command = processes.python("-m", ceiling.__name__, *arguments)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=processes.environment(), stdin=pipe, stdout=pipe) as reader:
            told = _told(reader)
            walsender, peak = _walsender_seconds(backlog, slot), processes.peak_bytes(reader.pid)
    whole = events / (told["last_at"] - started)
    cpu, sent = per_event(told["cpu"], events), per_event(walsender, events)
    return Run(name, events, told["rate"], whole, cpu, peak / 1e6, sent, None)


def _told(reader: "subprocess.Popen[bytes]") -> dict[str, float]:
    """Return the reader's output after it has read everything. It runs until its input is closed."""
    assert reader.stdout
    line = reader.stdout.readline()
    if not line:
        raise RuntimeError("the ceiling's reader failed; what it said is above")
    told: dict[str, float] = json.loads(line)
    return told


def run_recvlogical(name: str, backlog: Backlog) -> Run:
    """Run PostgreSQL's own client into /dev/null. It reports no times, so its rate is that of the whole run."""
    events, walsender, peak = backlog.workload.events, None, 0
    with backlog.slot() as slot:
        started = time.time()
        command = recvlogical.command(backlog.dsn, slot, PUBLICATION, str(backlog.end))
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while psutil.Process(client.pid).status() != psutil.STATUS_ZOMBIE:
            walsender = _walsender_seconds(backlog, slot) or walsender  # the last sample before its end
            peak = max(peak, processes.peak_bytes(client.pid))
            time.sleep(_SAMPLE_SECONDS)
        whole = events / (time.time() - started)
        cpu = processes.end(client, None)
    if client.returncode:
        raise RuntimeError(f"pg_recvlogical ended with {client.returncode}")
    return Run(name, events, None, whole, per_event(cpu, events), peak / 1e6, per_event(walsender, events), None)


def _walsender_seconds(backlog: Backlog, slot: str) -> float | None:
    rows = backlog.query("select active_pid from pg_replication_slots where slot_name = %s", slot)
    return processes.cpu_seconds(processes.walsender(rows[0][0] if rows else None))

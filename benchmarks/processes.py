"""CPU time and memory of processes on this machine."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

import cdc

ROOT = str(Path(cdc.__file__).resolve().parents[1])


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without settings of the program, and with the program of this tree.

    Python may write bytecode, since an installed package is compiled once and not at each start.
    """
    dropped = ("CDC_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    path = os.pathsep.join(filter(None, (ROOT, kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, **(extra or {})}


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def walsender(pid: int | None) -> psutil.Process | None:
    """Return PostgreSQL's process with a pid; None if it is on another machine or in another pid namespace."""
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid) if pid else None
        return found if found and "walsender" in " ".join(found.cmdline()) else None
    return None


def postgres(backend: int) -> list[psutil.Process]:
    """Return PostgreSQL's processes by one of them; none if they are on another machine or in another pid namespace."""
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(backend)
        return tree(found.ppid()) if "postgres" in " ".join(found.cmdline()) else []
    return []


def total_seconds(found: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds so far of processes, and of those they have run that have ended."""
    seconds = 0.0
    for process in found:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def cpu_seconds(process: psutil.Process | None) -> float | None:
    """Return user and system time of all threads so far; None if the process does not exist."""
    if process is None:
        return None
    try:
        times = process.cpu_times()
    except psutil.Error:
        return None
    return times.user + times.system


def peak_bytes(pid: int) -> int:
    """Return the peak resident memory so far (VmHWM); 0 if the process has ended.

    ru_maxrss is unsuitable: it starts at the size of the parent process.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def tree(pid: int) -> list[psutil.Process]:
    """Return a process, first, and all below it; none if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def proportional_bytes(process: psutil.Process) -> int:
    """Return the memory of a process in which shared pages count by their share (PSS); 0 if it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def resident_bytes(pid: int) -> int:
    """Return the resident memory in bytes; 0 if the process has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def end(process: "subprocess.Popen[bytes]", sent: signal.Signals | None = signal.SIGTERM) -> float:
    """Send a signal, wait until the process ends, and return its total CPU seconds."""
    if sent:
        process.send_signal(sent)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def run(command: Sequence[str], folder: Path, extra: Mapping[str, str] | None = None) -> None:
    """Run a command to its end. Raises RuntimeError with its output if it fails."""
    done = subprocess.run(command, cwd=folder, env=environment(extra), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")

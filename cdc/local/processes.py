"""Start detached server processes, find them by their command lines, and stop them reliably.

Only the process table is used, no pid files, so that servers of a killed `local up` are found. Processes whose command
lines do not contain the stack's folder are never touched.
"""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from cdc.errors import LocalStackError

PAUSE_SECONDS = 0.03
ROTATE_BYTES = 10_000_000

Step = tuple[signal.Signals, float]  # a signal, and the seconds to wait for its effect
KILL: tuple[Step, ...] = ((signal.SIGKILL, 10.0),)


class _Detached(subprocess.Popen[bytes]):
    """A process that outlives this one, without a ResourceWarning when its handle is dropped."""

    def __del__(self, *_: object) -> None:
        pass


# Own children to reap: without a wait, a dead child remains in the process table.
_children: list[_Detached] = []


def launch(
    command: list[str],
    *,
    log: Path,
    env: Mapping[str, str],
    user: str | None = None,
) -> psutil.Process:
    """Start `command` in a new session, optionally as `user`, and append its output to `log`.

    Raises LocalStackError.
    """
    return psutil.Process(_spawn(command, log, env, user).pid)


def _spawn(command: list[str], log: Path, env: Mapping[str, str], user: str | None) -> _Detached:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > ROTATE_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    # The other account must not get root's supplementary groups.
    group = pwd.getpwnam(user).pw_gid if user else 0
    account: dict[str, Any] = {"user": user, "group": group, "extra_groups": []} if user else {}
    try:
        with log.open("ab") as output:
            child = _Detached(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                cwd="/",  # the other account may not be able to enter the current directory
                start_new_session=True,  # Ctrl-C in the terminal must not stop the servers
                **account,
            )
    except OSError as error:
        raise LocalStackError(f"cannot run {command[0]}: {error}") from error
    _children.append(child)
    return child


def find(program: str, *arguments: str) -> list[psutil.Process]:
    """Return running processes of `program` (file name of argv[0]) with all `arguments` in argv."""
    _reap()
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if command and Path(command[0]).name == program and set(arguments) <= set(command[1:]):
            found.append(process)
    return [process for process in found if is_running(process)]


def find_in(folder: Path, program: str) -> list[psutil.Process]:
    """Return running processes of `program` with the working directory `folder`."""
    _reap()
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == program and process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if is_running(process)]


def is_running(process: psutil.Process) -> bool:
    """Return whether the process is running; zombies are not."""
    _reap()
    try:
        # The first thread of an exiting Java process is a zombie while other threads still hold its ports.
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


def _reap() -> None:
    # Replaced, not changed in place, because fault tests call this from several threads.
    global _children
    _children = [child for child in _children if child.poll() is None]


def stopping(processes: Iterable[psutil.Process], steps: Iterable[Step]) -> Iterator[None]:
    """Send the signal of each step and yield until all processes have exited, or its time is over.

    Raises LocalStackError if processes survive the last step.
    """
    remaining = [process for process in processes if is_running(process)]
    for number, seconds in steps:
        for process in remaining:
            _send(process, number)
        deadline = time.monotonic() + seconds
        while (remaining := [process for process in remaining if is_running(process)]) and (
            time.monotonic() < deadline
        ):
            yield
    if remaining:
        raise LocalStackError(f"processes {[process.pid for process in remaining]} cannot be stopped")


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        if number is signal.SIGKILL:
            # Stop it first, so that it cannot fork more children.
            process.suspend()
            for child in process.children(recursive=True):
                _send(child, number)
        process.send_signal(number)
        process.resume()  # a stopped process handles no signal but SIGKILL
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied as denied:
        raise LocalStackError(
            f"process {process.pid} belongs to another user", "run this as the user who ran `local up`"
        ) from denied


def finish(*tasks: Iterator[None]) -> None:
    """Run tasks, which yield while they wait, concurrently until all have finished.

    If one raises, the others are closed (their `finally` clauses run) and the exception propagates.
    """
    waiting = list(tasks)
    try:
        while waiting:
            waiting = [task for task in waiting if _advance(task)]
            if waiting:
                time.sleep(PAUSE_SECONDS)
    finally:
        for task in tasks:
            if close := getattr(task, "close", None):
                close()


def _advance(task: Iterator[None]) -> bool:
    try:
        next(task)
    except StopIteration:
        return False
    return True


def running(
    command: list[str],
    *,
    log: Path,
    env: Mapping[str, str],
    user: str | None = None,
    seconds: float = 60,
) -> Iterator[None]:
    """Run a tool, yielding until it exits; it never outlives this generator.

    Raises LocalStackError if it fails or takes longer than `seconds`.
    """
    start = size(log)
    child = _spawn(command, log, env, user)
    process = psutil.Process(child.pid)
    try:
        yield from waiting(lambda: child.poll() is not None, seconds, f"{Path(command[0]).name} did not finish", log)
    finally:
        finish_quietly(process)
    if child.returncode:
        raise LocalStackError(f"{Path(command[0]).name} failed: {reason(log, start)}", f"see {log}")


def finish_quietly(process: psutil.Process) -> None:
    """Kill a process and wait until it has exited."""
    finish(stopping([process], KILL))


def waiting(done: Callable[[], bool], seconds: float, complaint: str, log: Path) -> Iterator[None]:
    """Yield until `done()` returns true. Raises LocalStackError with `complaint` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise LocalStackError(f"{complaint} within {seconds:.0f} seconds", f"see {log}")
        yield


def size(log: Path) -> int:
    """Return the size of `log` in bytes; 0 if it does not exist."""
    return log.stat().st_size if log.exists() else 0


def reason(log: Path, start: int) -> str:
    """Return the most likely reason of an exit: the last error in `log` after byte `start`, or else the last line."""
    if not log.exists():
        return "it wrote no log"
    start = start if start <= size(log) else 0  # the log was rotated
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "ERROR", "Exception"))]
    return (errors or lines or ["it wrote no log"])[-1]


def remove(folder: Path) -> None:
    """Remove a folder and its content, if it exists."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def environment(*, without: str) -> dict[str, str]:
    """Return the environment with LC_ALL=C, without variables that have a prefix in the space-separated `without`."""
    unwanted = tuple(without.split())
    return {**{k: v for k, v in os.environ.items() if not k.startswith(unwanted)}, "LC_ALL": "C"}

"""Starts publishers and consumers as forks: a new interpreter imports for half a second of processor time.

One process imports what `start` needs and forks for each request, so that whatever the program does is done in a
process of its own, as after `python -m cdc`.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import ROOT

PROGRAM = "cdc.__main__"


class Forked:
    """A forked process; like `subprocess.Popen`."""

    def __init__(self, pid: int, answers: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._answers = answers

    def poll(self) -> int | None:
        """Return the exit code; negative for a signal, None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._answers], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(_line(self._answers) or 0))
            self._answers.close()
        return self.returncode


def run(arguments: list[str], seconds: float) -> "subprocess.CompletedProcess[str]":
    """Run the program to its end. Raises TimeoutExpired."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = start(arguments, output.fileno(), errors.fileno())
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())


def start(arguments: list[str], output: int, errors: int, module: str = PROGRAM) -> Forked:
    """Start `main` of a module with arguments, and with what it writes to two file descriptors."""
    answers, theirs = socket.socketpair()
    with theirs:
        request = {
            "module": module,
            "arguments": arguments,
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
        }
        socket.send_fds(_control(), [b"\n"], [theirs.fileno(), output, errors])
        _control().sendall(json.dumps(request).encode() + b"\n")
    return Forked(int(_line(answers)), answers)


def program() -> Path:
    """A folder for PATH, whose `cdc-publisher` is forked as well, where it is called and with the files it is given."""
    _control()
    return _folder()


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="cdc-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def _control() -> socket.socket:
    """The connection to the process that forks, which ends with this one."""
    ours, theirs = socket.socketpair()
    address = _folder() / "socket"
    script = _folder() / "cdc-publisher"
    script.write_text(_CALL.format(python=sys.executable, address=str(address)))
    script.chmod(0o755)
    with theirs, socket.socket(socket.AF_UNIX) as calls:
        calls.bind(str(address))
        calls.listen()
        descriptors = theirs.fileno(), calls.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forking", *map(str, descriptors)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=descriptors,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# An interpreter without the modules of packages starts in a fiftieth of the time.
_CALL = """\
#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}}
socket.send_fds(server, [b"\\n"], [0, 1, 2])
server.sendall(json.dumps(request).encode() + b"\\n")
answers = server.makefile()
pid = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = os.waitstatus_to_exitcode(int(answers.readline()))
sys.exit(code if code >= 0 else 128 - code)
"""


def _line(connection: socket.socket) -> bytes:
    """One line, without its end; empty at the end of the connection."""
    read = bytearray()
    while not read.endswith(b"\n"):
        if not (more := connection.recv(1)):
            return b""
        read += more
    return bytes(read[:-1])


def _serve(control: socket.socket, calls: socket.socket) -> tuple[str, list[str]]:
    """Fork for each request; returns module and arguments in each forked process, and ends with the connection.

    A request comes from the tests by `control`, or from the program in a PATH by a connection of its own.
    """
    running: dict[int, socket.socket] = {}
    callers: dict[int, socket.socket] = {}
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    while True:
        sources: list[socket.socket | int] = [control, calls, woken, *callers.values()]
        ready, _, _ = select.select(sources, [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report(running)
        for pid, caller in list(callers.items()):
            if pid not in running:
                del callers[pid]
            elif caller in ready:  # it was killed
                os.kill(pid, signal.SIGKILL)
                del callers[pid]
        if calls in ready:
            source = calls.accept()[0]
        elif control in ready:
            source = control
        else:
            continue
        start, descriptors, _, _ = socket.recv_fds(source, 1, 3)
        if not start:
            if source is control:
                sys.exit()
            continue
        request = json.loads(_line(source))
        # The tests give no standard input, and a socket for the answers.
        answers = source if source is not control else socket.socket(fileno=descriptors.pop(0))
        if pid := os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            running[pid] = answers
            if source is not control:
                callers[pid] = answers
            answers.sendall(b"%d\n" % pid)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for each in (control, calls, answers, *running.values()):
            each.close()
        for number, descriptor in enumerate(descriptors, 3 - len(descriptors)):
            os.dup2(descriptor, number)
        for number in (*descriptors, woken, waker):
            os.close(number)
        # Those of the interpreter know the position in the file that they were opened with; a pipe has none.
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, 1, stream.encoding, stream.errors, closefd=False)  # noqa: SIM115
            for number, mode, stream in ((0, "r", sys.stdin), (1, "w", sys.stdout), (2, "w", sys.stderr))
        )
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        random.seed()
        return request.get("module", PROGRAM), request["arguments"]


def _report(running: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with running.pop(ended[0]) as answers, contextlib.suppress(OSError):  # the test may have ended before
                answers.sendall(b"%d\n" % ended[1])


if __name__ == "__main__":
    import cdc.cli.publishing
    import cdc.cli.start  # noqa: F401 - what most of them need

    gc.collect()
    gc.freeze()
    module, arguments = _serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
    sys.argv = ["cdc-publisher", *arguments]
    importlib.import_module(module).main()

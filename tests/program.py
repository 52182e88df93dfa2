"""Run commands of the program within the tests' own process: a process for each costs a second of imports."""

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from cdc.cli import main
from cdc.logs import format as lines
from cdc.logs import setup as logs

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_here(arguments: tuple[str, ...], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, away from any terminal; returns its exit code and output.

    What a C library writes to standard error itself is not in the output.
    """
    with _output() as out, _output() as err, Path(os.devnull).open() as nothing, _process_state():
        environ, stdin = mock.patch.dict(os.environ, environment), mock.patch.object(sys, "stdin", nothing)
        with environ, stdin, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.run(arguments)
            logs.close()
        return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))


@contextlib.contextmanager
def _output() -> Iterator[io.TextIOWrapper]:
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) as stream:
        yield stream


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _process_state() -> Iterator[None]:
    """Give the command logging and signals as a new process has them, and put back what was there.

    A new process has no thread of an earlier test either, such as one that still leaves a consumer group and logs that
    its broker is gone.
    """
    others = {*threading.enumerate()} - {threading.current_thread()}
    call_handlers = logging.Logger.callHandlers

    def call_for_command(logger: logging.Logger, record: logging.LogRecord) -> None:
        if threading.current_thread() not in others:
            call_handlers(logger, record)

    root, scrub = logging.getLogger(), lines._scrub
    handlers, level = root.handlers[:], root.level
    last_resort = logging.lastResort.formatter if logging.lastResort else None
    signals = {number: signal.getsignal(number) for number in _SIGNALS}
    root.handlers[:] = []  # pytest's own take what a command without logs of its own would write to standard error
    try:
        with mock.patch.object(logging.Logger, "callHandlers", call_for_command):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        lines.hide(scrub)
        if logging.lastResort:
            logging.lastResort.setFormatter(last_resort)
        for number, handler in signals.items():
            signal.signal(number, handler)

"""Logs: one sentence and fields, as text for people or as JSON for machines, on standard error.

Nobody who logs ever waits: lines go through a bounded queue to a thread that writes them. What does not fit is
counted, and told in one line when there is room again.
"""

import atexit
import logging
import os
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TextIO

import orjson

ROOM: Final = 5000  # lines that wait for a slow reader
EXIT_SECONDS: Final = 2.0

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUOTED: Final = re.compile(r"[\s\"\\\x00-\x1f]")
_REPEAT_SECONDS: Final = 30.0
_BUSY_SECONDS: Final = 0.05

_scrub: Callable[[str], str] = str
_writer: "Writer | None" = None


def configure(log_format: str, *, verbose: bool, room: int = ROOM) -> None:
    """Send all logs to standard error. `log_format` is `text` or `json`."""
    global _writer
    close()
    atexit.register(close)  # the interpreter calls it behind whatever ends the program
    formatter = _Json() if log_format == "json" else _Text()
    _writer = Writer(sys.stderr, lambda count: formatter.format(_dropped(count)), room)
    handler = _Handler(_writer)
    handler.setFormatter(formatter)
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def hide(scrub: Callable[[str], str]) -> None:
    """From now on `scrub` takes the secrets out of every text that is logged or said."""
    global _scrub
    _scrub = scrub
    if logging.lastResort:
        # What writes warnings of commands that do not configure logs.
        logging.lastResort.setFormatter(_Bare())


def say(text: str) -> None:
    """Write a text for people to standard error, behind all that was logged and without secrets."""
    if _writer:
        _writer.put(_scrub(text))
    elif sys.stderr:
        print(_scrub(text), file=sys.stderr, flush=True)


def close() -> None:
    """Write what waits, for at most EXIT_SECONDS; later lines are written as they come."""
    global _writer
    if _writer:
        _writer.close(EXIT_SECONDS)
        _writer = None


def say_uncaught() -> None:
    """Errors that nobody catches, in any thread, are said too, instead of printed as they are."""

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        say("".join(traceback.format_exception(kind, error, trace)).rstrip())

    sys.excepthook = uncaught
    threading.excepthook = lambda args: uncaught(args.exc_type, args.exc_value, args.exc_traceback)


class Writer:
    """Takes lines from any thread, also from inside a signal handler, and writes them in order in its own thread.

    `told` makes the line that says how many lines are missing at its place.
    """

    def __init__(self, stream: TextIO | None, told: Callable[[int], str], room: int) -> None:
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._told = told
        self._room = room
        # Each line with the number of those that are missing before it. A SimpleQueue may be entered twice by a thread.
        self._waiting: queue.SimpleQueue[tuple[int, str] | threading.Event] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._no_room = 0
        self._missing = 0  # only of the thread, as is _cut
        self._cut = False
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def put(self, line: str) -> None:
        """Write a line soon; forget it when too many wait."""
        with self._lock:
            if self._waiting.qsize() >= self._room:
                self._no_room += 1
                return
            self._waiting.put((self._without_room(), line))

    def close(self, seconds: float) -> None:
        """End the thread behind the last line, and wait for that so long."""
        end = threading.Event()
        self._waiting.put(end)
        end.wait(seconds)

    def _run(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                self._tell(self._without_room())
                item.set()
                return
            missing, line = item
            self._tell(missing)
            self._missing += not self._write(line)
            if self._waiting.empty():
                self._tell(self._without_room())

    def _without_room(self) -> int:
        with self._lock:
            missing, self._no_room = self._no_room, 0
        return missing

    def _tell(self, missing: int) -> None:
        self._missing += missing
        if self._missing and self._write(self._told(self._missing)):
            self._missing = 0

    def _write(self, line: str) -> bool:
        # A line of which only a part was written is ended first.
        data = f"{chr(10) * self._cut}{line}\n".encode(errors="backslashreplace")
        try:
            if self._descriptor is not None:
                self._write_bytes(self._descriptor, data)
            elif self._stream is not None:
                self._stream.write(data.decode())
                self._stream.flush()
        except (OSError, ValueError):  # closed, nobody reads, no space left
            return False
        self._cut = False
        return True

    def _write_bytes(self, descriptor: int, data: bytes) -> None:
        """Without the stream's lock, which the interpreter wants at its end, whether or not somebody reads."""
        while data:
            try:
                written = os.write(descriptor, data)
            except BlockingIOError:
                time.sleep(_BUSY_SECONDS)
                continue
            data = data[written:]
            self._cut = bool(data)


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return stream.fileno() if stream else None
    except (OSError, ValueError):
        return None


def _dropped(count: int) -> logging.LogRecord:
    message = "log lines are missing here: standard error did not take them"
    warning = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
    return logging.makeLogRecord({**warning, "msg": message, "lines": count})


class _Handler(logging.Handler):
    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:
            # The standard handler would print the record's arguments as they are.
            line = f"{record.levelname.lower()} of {record.name} cannot be formatted: {type(error).__name__}"
        self._writer.put(line)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _hidden(text: str) -> str:
    """Without secrets, and in characters that UTF-8 has."""
    return _scrub(text).encode(errors="backslashreplace").decode()


class _Bare(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _hidden(super().format(record))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        trace = f"\n{_hidden(self.formatException(record.exc_info))}" if record.exc_info else ""
        return f"{_time(record)} {record.levelname.lower():7} {_hidden(record.getMessage())}{fields}{trace}"


def _plain(value: Any) -> str:
    text = "-" if value is None else _hidden(str(value))
    # Quoted as JSON where it would not read as one word: a line stays a line.
    return orjson.dumps(text).decode() if _QUOTED.search(text) else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _hidden(record.getMessage()),
            **{name: _safe(value) for name, value in _fields(record).items()},
        }
        if record.exc_info:
            line["traceback"] = _hidden(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return _hidden(value)
    if value is None or isinstance(value, int | float):
        return value
    text = orjson.dumps(value, default=str).decode()
    return orjson.Fragment(text) if _hidden(text) == text else _hidden(text)


class _Repeats(logging.Filter):
    """Drops what librdkafka repeats: it logs each failed attempt to connect to each broker."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("cdc.kafka.librdkafka") or record.levelno <= logging.DEBUG:
            return True
        kind = record.getMessage().split("]:")[0]
        last = self._seen.get(kind, float("-inf"))
        if record.created - last < _REPEAT_SECONDS:
            return False
        self._seen[kind] = record.created
        return True

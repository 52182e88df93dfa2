"""Configure logging to standard error as text or JSON.

Logging never blocks (`cdc.logs.writer`), repeated messages are rate-limited (`cdc.logs.rate_limit`), and secrets are
masked (`cdc.logs.format`).
"""

import atexit
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final

from cdc.logs import format as lines
from cdc.logs.rate_limit import RateLimit
from cdc.logs.writer import ROOM, Writer

EXIT_SECONDS: Final = 2.0

_handler: "LogHandler | None" = None


def configure(
    log_format: str, *, verbose: bool, room: int = ROOM, context: Mapping[str, str] | None = None, unit: str = ""
) -> None:
    """Send all logs to standard error as `log_format`, `text` or `json`; every JSON line has the fields of `context`.

    With `verbose`, debug lines are written and nothing is rate-limited. At most `room` lines wait for a reader. With
    `unit`, every line of text has this field.
    """
    global _handler
    close()
    atexit.register(close)  # also after an uncaught error
    formatter = lines.Json(context) if log_format == "json" else lines.Text(colour=_takes_colour(), unit=unit)
    _handler = LogHandler(formatter, None if verbose else RateLimit(), room)
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def hide(scrub: Callable[[str], str]) -> None:
    """Mask secrets with `scrub` in all lines from now on."""
    lines.hide(scrub)
    if logging.lastResort:
        # This handler writes warnings of commands that do not configure logging.
        logging.lastResort.setFormatter(lines.Bare())


def print_line(text: str) -> None:
    """Write text to standard error after all pending log lines, with secrets masked."""
    if _handler:
        _handler.write_suppressed()
        _handler.writer.put(lines.shown(text))
    elif sys.stderr:
        print(lines.shown(text), file=sys.stderr, flush=True)


def close() -> None:
    """Write pending lines for at most EXIT_SECONDS; later lines are written without this handler."""
    global _handler
    if _handler:
        _handler.write_suppressed()
        _handler.writer.close(EXIT_SECONDS)
        _handler = None


def print_traceback(error: BaseException) -> None:
    """Write the traceback of an error, indented so that no line of its text looks like a log line."""
    print_line("".join(traceback.format_exception(error)).rstrip().replace("\n", "\n  "))


def print_uncaught_errors() -> None:
    """Write uncaught errors of all threads with `print_traceback`, which masks secrets, instead of Python's default."""

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        print_traceback(error.with_traceback(trace) if error else kind())

    sys.excepthook = uncaught
    threading.excepthook = lambda args: uncaught(args.exc_type, args.exc_value, args.exc_traceback)


class LogHandler(logging.Handler):
    """Formats records and passes the lines to the writer thread, with an optional rate limit."""

    def __init__(self, formatter: logging.Formatter, limit: RateLimit | None, room: int) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._limit = limit
        self.writer = Writer(sys.stderr, lambda count: formatter.format(_dropped(count)), room, self._due)

    def emit(self, record: logging.LogRecord) -> None:
        for allowed in self._allowed(record):
            self.writer.put(self._line(allowed))

    def _allowed(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        try:
            return self._limit.take(record) if self._limit else [record]
        except Exception:  # its message cannot be formatted, which `_line` reports
            return [record]

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:
            # The standard handler would print the record's arguments with secrets.
            return f"{record.levelname.lower()} of {record.name} cannot be formatted: {type(error).__name__}"

    def _due(self) -> list[str]:
        if not self._limit:
            return []
        self.acquire()
        try:
            due = self._limit.due(time.time())
        finally:
            self.release()
        return [self._line(record) for record in due]

    def write_suppressed(self) -> None:
        """Write the suppressed records."""
        if not self._limit:
            return
        self.acquire()
        try:
            rest = self._limit.rest()
        finally:
            self.release()
        for record in rest:
            self.writer.put(self._line(record))


def _dropped(count: int) -> logging.LogRecord:
    message = "log lines were dropped here because standard error blocked"
    warning = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
    return logging.makeLogRecord({**warning, "msg": message, "event": "log_lines_dropped", "lines": count})


def _takes_colour() -> bool:
    """Return whether to write colours, following <https://no-color.org>."""
    stream = sys.stderr
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return bool(wanted and stream and not stream.closed and stream.isatty())

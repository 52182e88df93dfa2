"""Logs: one sentence and fields, as text for people or as JSON for machines, on standard error.

Nobody who logs ever waits, what repeats itself is told once with how often, and no line holds a secret:
`cdc.logs.writer`, `cdc.logs.rate_limit` and `cdc.logs.format` see to that, and this module puts them together.
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
from cdc.logs.rate_limit import Repeats
from cdc.logs.writer import ROOM, Writer

EXIT_SECONDS: Final = 2.0

_handler: "Handler | None" = None


def configure(log_format: str, *, verbose: bool, room: int = ROOM, context: Mapping[str, str] | None = None) -> None:
    """Send all logs to standard error. `log_format` is `text` or `json`; `context` are fields of every JSON line.

    The verbose get every line, however often it repeats itself.
    """
    global _handler
    close()
    atexit.register(close)  # the interpreter calls it behind whatever ends the program
    formatter = lines.Json(context) if log_format == "json" else lines.Text(colour=_takes_colour())
    _handler = Handler(formatter, None if verbose else Repeats(), room)
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def hide(scrub: Callable[[str], str]) -> None:
    """From now on `scrub` takes the secrets out of every text that is logged or said."""
    lines.hide(scrub)
    if logging.lastResort:
        # What writes warnings of commands that do not configure logs.
        logging.lastResort.setFormatter(lines.Bare())


def say(text: str) -> None:
    """Write a text for people to standard error, behind all that was logged and without secrets."""
    if _handler:
        _handler.tell_rest()
        _handler.writer.put(lines.shown(text))
    elif sys.stderr:
        print(lines.shown(text), file=sys.stderr, flush=True)


def close() -> None:
    """Write what waits, for at most EXIT_SECONDS; later lines are written as they come."""
    global _handler
    if _handler:
        _handler.tell_rest()
        _handler.writer.close(EXIT_SECONDS)
        _handler = None


def say_traceback(error: BaseException) -> None:
    """Say where an error comes from. Indented: no line of its text passes for a line of the log."""
    say("".join(traceback.format_exception(error)).rstrip().replace("\n", "\n  "))


def say_uncaught() -> None:
    """Errors that nobody catches, in any thread, are said too, instead of printed as they are."""

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        say_traceback(error.with_traceback(trace) if error else kind())

    sys.excepthook = uncaught
    threading.excepthook = lambda args: uncaught(args.exc_type, args.exc_value, args.exc_traceback)


class Handler(logging.Handler):
    """Hands lines to the thread that writes them. Without `repeats` every record is one."""

    def __init__(self, formatter: logging.Formatter, repeats: Repeats | None, room: int) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._repeats = repeats
        self.writer = Writer(sys.stderr, lambda count: formatter.format(_dropped(count)), room, self._due)

    def emit(self, record: logging.LogRecord) -> None:
        for told in self._taken(record):
            self.writer.put(self._line(told))

    def _taken(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        try:
            return self._repeats.take(record) if self._repeats else [record]
        except Exception:  # its message cannot be made, which `_line` tells
            return [record]

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:
            # The standard handler would print the record's arguments as they are.
            return f"{record.levelname.lower()} of {record.name} cannot be formatted: {type(error).__name__}"

    def _due(self) -> list[str]:
        if not self._repeats:
            return []
        self.acquire()
        try:
            due = self._repeats.due(time.time())
        finally:
            self.release()
        return [self._line(record) for record in due]

    def tell_rest(self) -> None:
        """Write what repeated itself and was held back."""
        if not self._repeats:
            return
        self.acquire()
        try:
            rest = self._repeats.rest()
        finally:
            self.release()
        for record in rest:
            self.writer.put(self._line(record))


def _dropped(count: int) -> logging.LogRecord:
    message = "log lines are missing here: standard error did not take them"
    warning = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
    return logging.makeLogRecord({**warning, "msg": message, "lines": count})


def _takes_colour() -> bool:
    """By <https://no-color.org>."""
    stream = sys.stderr
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return bool(wanted and stream and not stream.closed and stream.isatty())

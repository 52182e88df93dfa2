"""`status --watch`: one thread reads the status, the main thread shows it, and signals only put a word into a queue."""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from cdc.cli.screen.board import board
from cdc.logs.format import plain
from cdc.quantities import count, milliseconds, plural, rate, size, span
from cdc.status.document import StatusDocument
from cdc.status.lookout import Lookout
from cdc.telemetry.health import WORDS

_TICK_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 10.0  # longer than one look takes
_STOP_SECONDS: Final = 0.5  # how long a running look may take at the end


@dataclass(frozen=True, slots=True)
class StopSignal:
    """A signal to stop."""


@dataclass(frozen=True, slots=True)
class Resized:
    """The terminal has a new size."""


News = StatusDocument | Exception | Resized | StopSignal


class Looking:
    """A thread that puts a status document into `news` every `interval` seconds. A context manager."""

    def __init__(self, lookout: Lookout, interval: float, news: "queue.SimpleQueue[News]") -> None:
        self._lookout = lookout
        self._interval = interval
        self._news = news
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        with contextlib.closing(self._lookout):
            while not self._left.is_set():
                try:
                    self._news.put(self._lookout.look())
                except Exception as error:  # mostly of the settings: looking again does not help
                    self._news.put(error)
                    return
                self._left.wait(self._interval)


def watch(lookout: Lookout, interval: float, *, as_json: bool) -> int:
    """Show the status of the publisher until SIGINT or SIGTERM; returns the exit code.

    Raises CdcError when the settings are wrong.
    """
    # Unlike an event, this queue may be written to by a signal that interrupts the reading of it.
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    with _signals(news), Looking(lookout, interval, news):
        if sys.stdout.isatty() and not as_json:
            _screen(news, interval)
        else:
            _lines(news, as_json=as_json)
    return 0


@contextlib.contextmanager
def _signals(news: "queue.SimpleQueue[News]") -> Iterator[None]:
    """Stop on SIGINT, SIGTERM and SIGHUP, draw again on SIGWINCH; restore the handlers at the end."""
    stop, resized = StopSignal(), Resized()
    handlers = {signal.SIGWINCH: resized, **dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), stop)}
    before = {number: signal.signal(number, lambda *_, word=word: news.put(word)) for number, word in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _screen(news: "queue.SimpleQueue[News]", interval: float) -> None:
    console = Console()
    document: StatusDocument | None = None
    heard = time.monotonic()
    with Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
        live.update(Text("looking …", style="bright_black"), refresh=True)
        while not isinstance(word := _next(news, max(interval, _TICK_SECONDS)), StopSignal):
            if isinstance(word, Exception):
                raise word
            if isinstance(word, StatusDocument):
                document, heard = word, time.monotonic()
            if document is not None:
                shown = aged(document, time.monotonic() - heard, interval)
                live.update(board(shown, console, interval), refresh=True)


def _next(news: "queue.SimpleQueue[News]", seconds: float) -> News | None:
    """Return the next item that comes within `seconds`, or None."""
    with contextlib.suppress(queue.Empty):
        return news.get(timeout=seconds)
    return None


def aged(document: StatusDocument, seconds: float, interval: float) -> StatusDocument:
    """Add a note to a document that is older than usual: `seconds` since it came."""
    if seconds < interval + _PATIENCE_SECONDS:
        return document
    note = f"no answer for {span(seconds)}: showing the last answer"
    return document.model_copy(update={"notes": [note, *document.notes]})


def _lines(news: "queue.SimpleQueue[News]", *, as_json: bool) -> None:
    while not isinstance(word := news.get(), StopSignal):
        if isinstance(word, Exception):
            raise word
        if isinstance(word, StatusDocument):
            try:
                click.echo(word.json_line() if as_json else line(word))
            except BrokenPipeError:  # the reader of the output has ended
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return


def line(document: StatusDocument) -> str:
    """Format the document in one line, without unknown values."""
    lag, parts = document.lag, [plain(document.time), "unknown" if document.state is None else WORDS[document.state]]
    if document.rate.events_per_second is not None:
        parts.append(f"{rate(document.rate.events_per_second)} events/s")
    behind = [size(lag.bytes), *([span(lag.seconds)] if lag.seconds is not None else [])]
    behind += [plural(lag.events, "event")] if lag.events is not None else []
    parts.append(f"lag {', '.join(behind)}")
    if document.slot.retained_bytes is not None:
        limit = "" if document.slot.limit_bytes is None else f" of {size(document.slot.limit_bytes)}"
        parts.append(f"retained {size(document.slot.retained_bytes)}{limit}")
    if document.in_flight.events is not None:
        parts.append(f"in flight {count(document.in_flight.events)}")
    if document.latency.count:
        parts.append(f"p95 {milliseconds(document.latency.p95_ms)}")
    note = document.notes[0] if document.source != "endpoint" and document.notes else ""
    return "  ".join([*parts, *([f"({plain(note)})"] if note else [])])

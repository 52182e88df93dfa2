"""A child of an instance: it publishes one unit, reports its state each second, and ends when its instance does.

The pipe to the instance is both lifeline and voice. Its end, also by kill -9 of the instance, drains the child. Its
last word is the exit code, with what was wrong; a child that ends without one has crashed. This module is imported by
the instance too, so it loads little: `cdc.fleet.preload` has what the child runs.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

from cdc.config import environment
from cdc.config.masking import scrubber, secrets
from cdc.config.settings import Settings
from cdc.errors import CdcError
from cdc.logs import format as lines
from cdc.logs import setup as logs
from cdc.status.document import StatusDocument
from cdc.telemetry.metrics import FAILED, Figures, Metrics

DRAIN: Final = b"drain"
EXIT: Final = b"exit"
RELOAD: Final = b"reload"
EXIT_CODE: Final = 128 + signal.SIGKILL
_TELL_SECONDS: Final = 1.0
_LAST_SECONDS: Final = 5.0


class Birth(NamedTuple):
    """What a child is to do, and how it is to log."""

    unit: str
    settings: Settings
    log_format: str
    verbose: bool


class ChildReport(NamedTuple):
    """The state of a child."""

    document: StatusDocument
    figures: Figures


class LastWord(NamedTuple):
    """The exit code of a child, and what was wrong."""

    code: int
    why: str


class Voice:
    """The child's end of the pipe: a thread listens to the instance, and reports the state once a second."""

    def __init__(
        self, pipe: "Connection[object, object]", drain: Callable[[], None], reload: Callable[[], None]
    ) -> None:
        self._pipe = pipe
        self._orders: dict[bytes, Callable[[], object]] = {DRAIN: drain, RELOAD: reload, EXIT: _exit}
        self._drain = drain
        self._state: Callable[[], ChildReport] | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, name="pipe", daemon=True).start()

    def reports(self, state: Callable[[], ChildReport]) -> None:
        """Report this from now on."""
        self._state = state

    def ends(self, word: LastWord) -> None:
        """Say the last word; a frozen instance, whose pipe is full, does not hold up the end."""
        if self._lock.acquire(timeout=_LAST_SECONDS):
            with contextlib.suppress(OSError):
                if self._state:
                    self._pipe.send(self._state())
                self._pipe.send(word)

    def _listen(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                while self._pipe.poll(_TELL_SECONDS):
                    self._orders[self._pipe.recv_bytes()]()
                if self._state:
                    with self._lock:
                        self._pipe.send(self._state())
        self._drain()  # the instance is gone


def _exit() -> None:
    os._exit(EXIT_CODE)


def run(pipe: "Connection[object, object]", birth: Birth) -> None:
    """Publish the unit until the instance says or ends; for a process that was forked for it."""
    stop, reload = threading.Event(), threading.Event()
    # A terminal sends SIGINT to the child as well, and systemd may send SIGTERM: the instance leaves the group first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = birth.settings
    logs.hide(scrubber(secrets(settings.model_dump()) | environment.secrets(os.environ)))
    context = {"unit": birth.unit, "slot": settings.postgres.slot}
    logs.configure(birth.log_format, verbose=birth.verbose, context=context, unit=birth.unit)
    voice = Voice(pipe, stop.set, reload.set)
    voice.ends(_published(birth, voice, stop, reload))
    logs.close()
    pipe.close()


def _published(birth: Birth, voice: Voice, stop: threading.Event, reload: threading.Event) -> LastWord:
    from cdc.fleet import preload

    if os.getpid() == preload.LOADED_BY:
        return LastWord(1, "the modules of a publisher could not be loaded before it was forked: see the log")
    from cdc.app.publishing import log, publish
    from cdc.records.fastpath import select
    from cdc.recovery.automatic import heal
    from cdc.status.from_metrics import PublisherIdentity, describe

    settings = birth.settings
    metrics = Metrics(time.time(), lines.hidden, settings.topics.positions)
    try:
        runs = select.choose(settings.delivery.accelerator)
        identity = PublisherIdentity.of(settings, os.getpid(), runs.name)
        voice.reports(lambda: ChildReport(describe(metrics, identity, time.time(), past=False), metrics.figures))
        return LastWord(publish(settings, metrics, runs, stop, reload, heal=heal, metered=True, patient=True), "")
    except CdcError as error:
        metrics.meet(error, FAILED, time.time())
        log.error("%s", error, extra={"event": "failed", "exit_code": error.exit_code})
        return LastWord(error.exit_code, lines.hidden(str(error)))

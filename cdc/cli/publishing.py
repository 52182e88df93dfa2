"""What `start` does with its settings, until a signal. Importing this takes most of the time of a start."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from cdc.app.publishing import publish
from cdc.app.reaching import Reached
from cdc.background import Task
from cdc.config.settings import Settings
from cdc.delivery.ports import Flag
from cdc.errors import CdcError, Temporary
from cdc.logs import format as lines
from cdc.records.fastpath import select as accelerator
from cdc.telemetry.metrics import FAILED, Metrics

log = logging.getLogger("cdc.start")


def run(
    settings: Settings,
    stop: threading.Event,
    reload: threading.Event,
    reaching: Task[Reached],
    *,
    accept_changes: bool,
    skipped: frozenset[str],
) -> int:
    """Publish until `stop` is set, with HTTP if that is wanted; return the exit code. Raises CdcError."""
    runs = accelerator.choose(settings.delivery.accelerator)
    metrics = Metrics(time.time(), lines.hidden, settings.topics.positions)
    with _endpoint(settings, metrics, runs.name):
        try:
            return publish(
                settings,
                metrics,
                runs,
                stop,
                reload,
                heal=_heal,
                metered=settings.http.listen is not None,
                accept_changes=accept_changes,
                skipped=skipped,
                reaching=reaching,
            )
        except CdcError as error:
            _linger(error, metrics, settings, stop)
            raise


def _heal(settings: Settings, stop: Flag, metrics: Metrics, alive: Callable[[], None], lost: CdcError) -> None:
    from cdc.recovery.automatic import heal  # needed rarely

    heal(settings, stop, metrics, alive, lost)


def _endpoint(settings: Settings, metrics: Metrics, runs: str) -> contextlib.AbstractContextManager[object]:
    """Return a context manager that serves HTTP if [http] listen is set. Entering it raises ConfigError."""
    if settings.http.listen is None:
        return contextlib.nullcontext()
    # Slow imports, needed only with an endpoint.
    from cdc.http.application import Application
    from cdc.http.server import HttpServer
    from cdc.status.from_metrics import PublisherIdentity

    return HttpServer(settings.http.listen, Application(metrics, PublisherIdentity.of(settings, os.getpid(), runs)))


def _linger(error: CdcError, metrics: Metrics, settings: Settings, stop: threading.Event) -> None:
    """Report a fatal error over HTTP for `linger_seconds`, or until a signal."""
    metrics.meet(error, FAILED, time.time())
    if settings.http.listen is not None and not isinstance(error, Temporary):
        log.error("%s", error, extra={"event": "failed", "exits_in_seconds": settings.http.linger_seconds})
        stop.wait(settings.http.linger_seconds)

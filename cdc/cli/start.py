"""`start`: run the publisher until SIGTERM or SIGINT."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

import click

from cdc.app.publishing import publish
from cdc.app.signals import stop_on_signals
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import PositionType
from cdc.config.settings import Settings, require
from cdc.delivery.ports import Flag
from cdc.errors import CdcError, Temporary
from cdc.logs import format as lines
from cdc.logs import setup as logs
from cdc.records.fastpath import select as accelerator
from cdc.telemetry.metrics import FAILED, Metrics

log = logging.getLogger("cdc.start")


@click.command(
    epilog=examples(
        "cdc-publisher --config shop.toml start",
        "cdc-publisher start --skip 0badcafe-00000000016B3748-00000000",
    )
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Start even if slot, publication, table or settings have changed since the last run.",
)
@click.option(
    "--skip",
    "skipped",
    type=PositionType(),
    multiple=True,
    metavar="POSITION",
    help="Send the poison event at POSITION to the dead-letter topic, and continue; repeatable.",
)
@click.pass_obj
def start(invocation: Invocation, *, accept_changes: bool, skipped: tuple[str, ...]) -> int:
    """Run the publisher until SIGTERM or SIGINT.

    The first signal stops reading, waits until Kafka has confirmed all sent events, and confirms them to the slot. The
    second signal exits at once. No event is lost in either case, nor after kill -9, because the slot advances only
    after delivery.

    SIGHUP reloads the contracts between two transactions.

    With --skip, the poison event that a publisher has stopped at becomes a dead letter, although [delivery] on_poison
    is stop; the error message has its position. An event that can be published is published. Give it once: the dead
    letter is delivered before the slot moves.

    Exit codes: 0 stopped, all events confirmed; 1 error that an operator must resolve; 75 temporary error, start again;
    78 invalid configuration.
    """
    settings = require(invocation.settings())
    context = {"slot": settings.postgres.slot}
    logs.configure(invocation.log_format, verbose=invocation.verbose, context=context)
    runs = accelerator.choose(settings.delivery.accelerator)
    stop, reload = threading.Event(), threading.Event()
    stop_on_signals(stop, log)
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
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
                skipped=frozenset(skipped),
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

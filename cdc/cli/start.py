"""`start`: run the publisher until SIGTERM or SIGINT."""

import contextlib
import functools
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable

import click

from cdc import __version__
from cdc.app.connections import Clock, Servers
from cdc.app.contracts import Schemas
from cdc.app.process import Watchdog, tune
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import PositionType
from cdc.cli.signals import stop_on_signals
from cdc.config.settings import Settings, require
from cdc.delivery.service import Service
from cdc.errors import CdcError, Temporary
from cdc.kafka import producer
from cdc.logs import format as lines
from cdc.logs import setup as logs
from cdc.records.fastpath import select as accelerator
from cdc.telemetry import setup as tracing
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
    with _endpoint(settings, metrics, runs.name), contextlib.closing(Schemas(settings)) as schemas:
        schemas.read()
        producer.validate(settings)
        tune()
        log.info(
            "starting",
            extra={
                "event": "starting",
                "version": __version__,
                "contracts": len(schemas.names),
                "accelerator": runs.name,
            },
        )
        if accelerator.is_missing(settings.delivery.accelerator, runs):
            log.info(
                "the native accelerator, which raises throughput, is not installed",
                extra={"event": "accelerator_missing", "install": accelerator.INSTALL},
            )
        with tracing.opened(settings) as tracer, Watchdog() as watchdog:
            service = Service(
                settings,
                schemas,
                Servers(settings, frozenset(skipped)),
                stop,
                reload,
                Clock(),
                random.random,
                accept_changes=accept_changes,
                alive=functools.partial(_alive, watchdog, metrics),
                make=runs.make,
                metrics=metrics,
                metered=settings.http.listen is not None,
                tracer=tracer,
                heal=_healing(settings, stop, metrics, watchdog),
            )
            try:
                return 0 if service.run() else 75
            except CdcError as error:
                _linger(error, metrics, settings, stop)
                raise


def _alive(watchdog: Watchdog, metrics: Metrics) -> None:
    watchdog.turned()
    metrics.turned_monotonic = time.monotonic()


def _healing(
    settings: Settings, stop: threading.Event, metrics: Metrics, watchdog: Watchdog
) -> Callable[[CdcError], None] | None:
    """Return what recovers from a lost slot, if it is wanted."""
    if settings.delivery.on_slot_lost != "recover":
        return None
    from cdc.recovery.automatic import heal  # needed rarely

    return functools.partial(heal, settings, stop, metrics, functools.partial(_alive, watchdog, metrics))


def _endpoint(settings: Settings, metrics: Metrics, runs: str) -> contextlib.AbstractContextManager[object]:
    """Return a context manager that serves HTTP if [http] listen is set. Entering it raises ConfigError."""
    if settings.http.listen is None:
        return contextlib.nullcontext()
    # Slow imports, needed only with an endpoint.
    from cdc.http.server import HttpServer
    from cdc.status.from_metrics import PublisherIdentity

    postgres = settings.postgres
    guarantee = settings.delivery.guarantee
    identity = PublisherIdentity(__version__, os.getpid(), postgres.slot, postgres.publication, guarantee, runs)
    return HttpServer(settings.http.listen, metrics, identity)


def _linger(error: CdcError, metrics: Metrics, settings: Settings, stop: threading.Event) -> None:
    """Report a fatal error over HTTP for `linger_seconds`, or until a signal."""
    metrics.meet(error, FAILED, time.time())
    if settings.http.listen is not None and not isinstance(error, Temporary):
        log.error("%s", error, extra={"event": "failed", "exits_in_seconds": settings.http.linger_seconds})
        stop.wait(settings.http.linger_seconds)

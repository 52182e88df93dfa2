"""`start`: run the publisher until SIGTERM or SIGINT."""

import contextlib
import functools
import logging
import os
import random
import signal
import threading
import time

import click

from cdc import __version__
from cdc.app.connections import Clock, Servers
from cdc.app.contracts import Schemas
from cdc.app.process import Watchdog, tune
from cdc.cli.main import Invocation
from cdc.cli.signals import stop_on_signals
from cdc.config.settings import Settings, require
from cdc.delivery.service import Service
from cdc.errors import CdcError, Temporary
from cdc.kafka import producer
from cdc.logs import format as lines
from cdc.logs import setup as logs
from cdc.records.fastpath import select as accelerator
from cdc.status.from_metrics import Identity
from cdc.telemetry import setup as tracing
from cdc.telemetry.metrics import FAILED, Metrics

log = logging.getLogger("cdc.start")


@click.command(epilog="Example: cdc-publisher --config shop.toml start")
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Go on although slot, publication, table or settings are not as the publisher left them.",
)
@click.pass_obj
def start(invocation: Invocation, *, accept_changes: bool) -> int:
    """Run the publisher until SIGTERM or SIGINT.

    The first signal stops reading, waits until Kafka has confirmed what was read and moves the slot; the second
    ends the process at once. Either way, and after kill -9, nothing is lost: the slot only moves behind Kafka.

    SIGHUP reads the contracts again, between two transactions.

    Exit codes: 0 stopped and drained; 1 needs a person; 75 temporary: start it again; 78 configuration.
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
            extra={"version": __version__, "contracts": len(schemas.names), "accelerator": runs.name},
        )
        with tracing.opened(settings) as tracer, Watchdog() as watchdog:
            service = Service(
                settings,
                schemas,
                Servers(settings),
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
            )
            try:
                return 0 if service.run() else 75
            except CdcError as error:
                _tell(error, metrics, settings, stop)
                raise


def _alive(watchdog: Watchdog, metrics: Metrics) -> None:
    watchdog.turned()
    metrics.turned_monotonic = time.monotonic()


def _endpoint(settings: Settings, metrics: Metrics, runs: str) -> contextlib.AbstractContextManager[object]:
    """The HTTP endpoint, if one is wanted. Entering it raises ConfigError when it cannot listen."""
    if settings.http.listen is None:
        return contextlib.nullcontext()
    from cdc.http.server import Server  # only here: it takes 0.1 s to import

    postgres = settings.postgres
    guarantee = settings.delivery.guarantee
    identity = Identity(__version__, os.getpid(), postgres.slot, postgres.publication, guarantee, runs)
    return Server(settings.http.listen, metrics, identity)


def _tell(error: CdcError, metrics: Metrics, settings: Settings, stop: threading.Event) -> None:
    """Let those who ask over HTTP know of what ends the process, for a moment; a signal ends that."""
    metrics.meet(error, FAILED, time.time())
    if settings.http.listen is not None and not isinstance(error, Temporary):
        log.error("%s", error, extra={"exits_in_seconds": settings.http.linger_seconds})
        stop.wait(settings.http.linger_seconds)

"""Publishes one outbox until it is stopped: what `start` runs, and each child of a fleet."""

import contextlib
import functools
import logging
import random
import time
from collections.abc import Callable

from cdc import __version__
from cdc.app.connections import Clock, Servers
from cdc.app.contracts import Schemas
from cdc.app.process import Watchdog, tune
from cdc.app.reaching import Reached
from cdc.background import Task
from cdc.config.settings import Settings
from cdc.delivery.ports import Flag
from cdc.delivery.service import Service
from cdc.errors import CdcError
from cdc.kafka import producer
from cdc.records.fastpath import select as accelerator
from cdc.records.fastpath.select import Accelerator
from cdc.telemetry import setup as tracing
from cdc.telemetry.metrics import Metrics

log = logging.getLogger("cdc.start")

Heal = Callable[[Settings, Flag, Metrics, Callable[[], None], CdcError], None]
"""Recovers from a lost slot, or raises the error that it is given."""


def publish(
    settings: Settings,
    metrics: Metrics,
    runs: Accelerator,
    stop: Flag,
    reload: Flag,
    *,
    heal: Heal | None,
    metered: bool,
    accept_changes: bool = False,
    skipped: frozenset[str] = frozenset(),
    reaching: Task[Reached] | None = None,
    patient: bool = False,
) -> int:
    """Publish until `stop` is set; return the exit code: 0, or 75 when Kafka has not confirmed everything.

    `runs` is what `accelerator.choose` returned; `heal` is called if [delivery] on_slot_lost says so; `reaching` has
    begun to reach Kafka; a `patient` standby tries less often after a minute. The other arguments are those of
    `Service`. Raises CdcError.
    """
    with contextlib.closing(Schemas(settings)) as schemas:
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
            alive = functools.partial(_alive, watchdog, metrics)
            recovers = heal is not None and settings.delivery.on_slot_lost == "recover"
            servers = _servers(settings, skipped, reaching)
            service = Service(
                settings,
                schemas,
                servers,
                stop,
                reload,
                Clock(),
                random.random,
                accept_changes=accept_changes,
                alive=alive,
                make=runs.make,
                metrics=metrics,
                metered=metered,
                tracer=tracer,
                heal=functools.partial(heal, settings, stop, metrics, alive) if heal and recovers else None,
                taken=servers.taken if patient else None,
            )
            return 0 if service.run() else 75


def _servers(settings: Settings, skipped: frozenset[str], reaching: Task[Reached] | None) -> Servers:
    if not settings.postgres.polls:
        return Servers(settings, skipped, reaching)
    from cdc.app.polling import PollingServers  # 1 MB, and 2 % of the CPU time of a start

    return PollingServers(settings, skipped, reaching)


def _alive(watchdog: Watchdog, metrics: Metrics) -> None:
    watchdog.turned()
    metrics.turned_monotonic = time.monotonic()

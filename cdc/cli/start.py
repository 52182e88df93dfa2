"""`start`: run the publisher until SIGTERM or SIGINT."""

import contextlib
import gc
import logging
import random
import signal
import threading
from typing import Final

import click

from cdc import __version__, accelerator, logs
from cdc.cli.main import Invocation
from cdc.cli.signals import stop_on_signals
from cdc.config.settings import require
from cdc.kafka import producer
from cdc.schemas import Schemas
from cdc.servers import Clock, Servers
from cdc.service import Service
from cdc.watchdog import Watchdog

log = logging.getLogger("cdc.start")

_COLLECT_AFTER: Final = 20_000  # containers more than before


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
    logs.configure(invocation.log_format, verbose=invocation.verbose)
    runs = accelerator.choose(settings.delivery.accelerator)
    with contextlib.closing(Schemas(settings)) as schemas:
        schemas.read()
        producer.validate(settings)
        stop, reload = threading.Event(), threading.Event()
        stop_on_signals(stop, log)
        signal.signal(signal.SIGHUP, lambda *_: reload.set())
        # What was built so far lives as long as the process: no collection need look at it again. And a burst makes
        # thousands of containers that end with it, in no cycle: to look for one after each 700 costs 3 % of the whole.
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
        log.info(
            "starting",
            extra={"version": __version__, "contracts": len(schemas.names), "accelerator": runs.name},
        )
        with Watchdog() as watchdog:
            service = Service(
                settings,
                schemas,
                Servers(settings),
                stop,
                reload,
                Clock(),
                random.random,
                accept_changes=accept_changes,
                alive=watchdog.turned,
                make=runs.make,
            )
            return 0 if service.run() else 75

"""`start`: run the publisher until SIGTERM or SIGINT."""

import functools
import gc
import logging
import signal
import threading

import click

from cdc.app.reaching import reach
from cdc.app.signals import stop_on_signals
from cdc.background import Task
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import PositionType
from cdc.config.settings import require
from cdc.errors import ConfigError
from cdc.logs import setup as logs

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
    if skipped and settings.postgres.polls:
        raise ConfigError(
            '--skip goes by positions, and with [postgres] source = "polling" a row has another one in each session',
            hint='correct the row, or let poison events become dead letters: [delivery] on_poison = "dead-letter"',
        )
    context = {"slot": settings.postgres.slot}
    logs.configure(invocation.log_format, verbose=invocation.verbose, context=context)
    stop, reload = threading.Event(), threading.Event()
    stop_on_signals(stop, log)
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    # Kafka answers while everything else is imported, which takes longer: 60 ms less until the first record. What
    # imports create is no garbage: see `cdc.__main__`.
    reaching = Task("reach", functools.partial(reach, settings))
    gc.disable()
    from cdc.cli.publishing import run

    return run(settings, stop, reload, reaching, accept_changes=accept_changes, skipped=frozenset(skipped))

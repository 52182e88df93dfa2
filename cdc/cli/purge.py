"""`outbox purge`: delete rows of the outbox that are published and old enough, once or for ever."""

import contextlib
import json
import logging
import random
import sys
import threading
import time
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cdc.backoff import Backoff
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import Duration
from cdc.cli.signals import stop_on_signals
from cdc.config.settings import Settings, require
from cdc.errors import Temporary
from cdc.logs import setup as logs
from cdc.purge.horizon import Clock
from cdc.purge.run import NotConfirmed, Options, Outcome, Purging
from cdc.quantities import plural

log = logging.getLogger("cdc.purge.horizon")


@click.command(
    epilog=examples(
        "cdc-publisher outbox purge --dry-run",
        "cdc-publisher outbox purge --grace 7d --age-column created_at",
        "cdc-publisher outbox purge --grace 7d --watch",
    )
)
@click.option("--grace", type=Duration(), default="1d", show_default=True, help="Rows stay for so long: 30m, 12h, 7d.")
@click.option("--batch", type=click.IntRange(1, 100_000), default=2000, show_default=True, help="Rows a transaction.")
@click.option("--wait", type=Duration(), default="20s", show_default=True, help="How long the publisher is waited for.")
@click.option("--age-column", metavar="NAME", help="The column that tells a row's age.  [default: created_at]")
@click.option("--keep-partitions", is_flag=True, help="Delete rows only; drop no partition.")
@click.option("--accept-unknown", is_flag=True, help="Believe the slot where Kafka has no record of it.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Go on until SIGTERM or SIGINT.")
@click.option("--interval", type=Duration(), default="1m", show_default=True, help="Between two rounds of --watch.")
@click.pass_obj
def purge(invocation: Invocation, /, *, as_json: bool, interval: float, **given: Any) -> int:
    """Delete rows whose events are in Kafka and that are older than --grace.

    Gone are only rows of transactions that had ended before a point of the write-ahead log which the slot, moved by
    the publisher, has passed; what is in doubt stays. Partitions by the time that tells the age are dropped as a whole
    once all of their rows may go.

    Exit codes: 0 done; 1 needs a person: rows may be unpublished; 75 temporary: the publisher is not far enough, or a
    partition is in use; 78 configuration.
    """
    options = Options(**given)
    if options.watch and (as_json or options.dry_run):
        raise click.UsageError("--watch writes logs: it goes without --json (see --log-format) and --dry-run")
    settings = require(invocation.settings(), kafka=False)
    if options.watch:
        logs.configure(invocation.log_format, verbose=invocation.verbose, context={"slot": settings.postgres.slot})
    if not settings.kafka:
        _tell("no [kafka] settings: the slot alone says what is published, whoever moved it", watch=options.watch)
    if options.watch:
        stop = threading.Event()
        stop_on_signals(stop, log)
        _watch(settings, options, interval, stop)
        return 0
    return _once(settings, options, as_json=as_json)


def _once(settings: Settings, options: Options, *, as_json: bool) -> int:
    outcome = Outcome()
    try:
        with (
            contextlib.closing(Purging(settings, options, threading.Event())) as purging,
            _bar() as bar,
        ):
            task = bar.add_task("purging")
            for done, total in purging.round(outcome):
                bar.update(task, completed=done, total=total, description=f"{outcome.deleted:,} rows")
    finally:
        if outcome.due is not None:  # also when it was interrupted
            for note in outcome.notes:
                _tell(note, watch=False)
            facts = {"table": settings.outbox.table, "dry_run": options.dry_run, **_facts(outcome)}
            click.echo(json.dumps(facts) if as_json else _summary(settings.outbox.table, options, outcome))
    return 75 if outcome.busy else 0


def _watch(settings: Settings, options: Options, interval: float, stop: threading.Event) -> None:
    give_up_at = time.monotonic() + settings.delivery.startup_seconds
    backoff = Backoff(random.random)
    told: set[str] = set()
    purging: Purging | None = None
    try:
        while not stop.is_set():
            pause, began, outcome = interval, time.monotonic(), Outcome()
            try:
                if purging is None or not purging.alive:
                    purging = Purging(settings, options, stop)
                for _ in purging.round(outcome):
                    pass
                backoff.reset()
                _log(outcome, time.monotonic() - began, told)
            except Temporary as error:
                if purging is None and time.monotonic() >= give_up_at:
                    raise
                if not isinstance(error, NotConfirmed):
                    pause = backoff.pause()
                if not stop.is_set():
                    log.warning("%s", error, extra={"retry_in_seconds": round(pause, 2)})
            stop.wait(pause)
    finally:
        if purging is not None:
            purging.close()
    log.info("stopped")


def _log(outcome: Outcome, seconds: float, told: set[str]) -> None:
    for note in outcome.notes:
        if note not in told:
            log.warning("%s", note)
    told |= set(outcome.notes)
    log.info("purged", extra={**_facts(outcome), "seconds": round(seconds, 2)})


def _facts(outcome: Outcome) -> dict[str, object]:
    due = outcome.due
    return {
        "deleted": outcome.deleted,
        "dropped": outcome.dropped,
        "busy": outcome.busy,
        "confirmed": None if due is None else str(due.horizon.lsn),
        "before": None if due is None or due.age.clock is Clock.NONE else due.cutoff,
    }


def _summary(table: str, options: Options, outcome: Outcome) -> str:
    would = "would " if options.dry_run else ""
    told = [f"{would}delete{'' if would else 'd'} {plural(outcome.deleted, 'row')} of {table}"]
    if outcome.dropped:
        names = ", ".join(f"{name} ({plural(rows, 'row')})" for name, rows in outcome.dropped.items())
        told.append(f"{would}drop{'' if would else 'ped'} {names}")
    if outcome.busy:
        told.append(f"{', '.join(outcome.busy)} in use: run it again")
    return "; ".join(told)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _tell(text: str, *, watch: bool) -> None:
    if watch:
        log.warning("%s", text)
    else:
        logs.say(f"cdc-publisher: warning: {text}")

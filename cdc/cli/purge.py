"""`outbox purge`: delete published rows that are old enough, once or repeatedly."""

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

from cdc.app.signals import stop_on_signals
from cdc.backoff import Backoff
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import Duration
from cdc.config.settings import Settings, require
from cdc.errors import Temporary
from cdc.logs import setup as logs
from cdc.purge.age import AgeClock
from cdc.purge.run import NotConfirmed, PurgeOptions, PurgeOutcome, Purging
from cdc.quantities import plural

log = logging.getLogger("cdc.purge.run")


@click.command(
    epilog=examples(
        "cdc-publisher outbox purge --dry-run",
        "cdc-publisher outbox purge --grace 7d --age-column created_at",
        "cdc-publisher outbox purge --grace 7d --watch",
    )
)
@click.option(
    "--grace",
    type=Duration(),
    metavar="DURATION",
    default="1d",
    show_default=True,
    help="Keep rows younger than this, such as 30m, 12h or 7d.",
)
@click.option(
    "--batch", type=click.IntRange(1, 100_000), default=2000, show_default=True, help="Rows to delete per transaction."
)
@click.option(
    "--wait",
    type=Duration(),
    metavar="DURATION",
    default="20s",
    show_default=True,
    help="How long to wait for the publisher to confirm its position.",
)
@click.option("--age-column", metavar="COLUMN", help="Column with a row's creation time.  [default: created_at]")
@click.option("--keep-partitions", is_flag=True, help="Delete rows only, and drop no partitions.")
@click.option("--accept-unknown", is_flag=True, help="Trust the slot if Kafka has no record of it.")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted without deleting it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Repeat until SIGTERM or SIGINT.")
@click.option(
    "--interval",
    type=Duration(),
    metavar="DURATION",
    default="1m",
    show_default=True,
    help="Pause between rounds of --watch.",
)
@click.pass_obj
def purge(invocation: Invocation, /, *, as_json: bool, interval: float, **given: Any) -> int:
    """Delete rows that are older than --grace and whose events are in Kafka.

    Deletes only rows of transactions that ended before an LSN that the publisher has confirmed; rows in doubt are kept.
    If the table is partitioned by the creation time, whole partitions are dropped once all their rows can be deleted.

    An error of one table or partition does not keep the others from being purged.

    Exit codes: 0 success; 1 rows may be unpublished, or a table failed: an operator must decide; 75 temporary: the
    publisher has not confirmed enough yet, or a partition is in use; 78 invalid configuration.
    """
    options = PurgeOptions(**given)
    if options.watch and (as_json or options.dry_run):
        raise click.UsageError(
            "--watch writes logs and excludes --dry-run and --json; for JSON logs, use --log-format json"
        )
    settings = require(invocation.settings(), kafka=False)
    if options.watch:
        logs.configure(invocation.log_format, verbose=invocation.verbose, context={"slot": settings.postgres.slot})
    if not (settings.kafka or settings.postgres.polls):
        _warn(
            "without [kafka] settings, only the slot shows which rows are published, and any program may have moved it",
            watch=options.watch,
        )
    if options.watch:
        stop = threading.Event()
        stop_on_signals(stop, log)
        _watch(settings, options, interval, stop)
        return 0
    return _once(settings, options, as_json=as_json)


def _once(settings: Settings, options: PurgeOptions, *, as_json: bool) -> int:
    outcome = PurgeOutcome()
    try:
        with (
            contextlib.closing(Purging(settings, options, threading.Event())) as purging,
            _bar() as bar,
        ):
            task = bar.add_task("purging")
            for done, total in purging.round(outcome):
                bar.update(task, completed=done, total=total, description=f"{outcome.deleted:,} rows")
    finally:
        if outcome.due is not None:  # also after an interruption
            for note in outcome.notes:
                _warn(note, watch=False)
            for name, reason in outcome.failed.items():
                logs.print_line(f"cdc-publisher: {name}: {reason}")
            facts = {"table": settings.outbox.table, "dry_run": options.dry_run, **_facts(outcome)}
            click.echo(json.dumps(facts) if as_json else _summary(settings.outbox.table, options, outcome))
    return 1 if outcome.failed else 75 if outcome.busy else 0


def _watch(settings: Settings, options: PurgeOptions, interval: float, stop: threading.Event) -> None:
    give_up_at = time.monotonic() + settings.delivery.startup_seconds
    backoff = Backoff(random.random)
    logged: set[str] = set()
    purging: Purging | None = None
    try:
        while not stop.is_set():
            pause, began, outcome = interval, time.monotonic(), PurgeOutcome()
            try:
                if purging is None or not purging.alive:
                    purging = Purging(settings, options, stop)
                for _ in purging.round(outcome):
                    pass
                backoff.reset()
                _log(outcome, time.monotonic() - began, logged)
            except Temporary as error:
                if purging is None and time.monotonic() >= give_up_at:
                    raise
                if not isinstance(error, NotConfirmed):
                    pause = backoff.pause()
                if not stop.is_set():
                    log.warning("%s", error, extra={"event": "purge_retried", "retry_in_seconds": round(pause, 2)})
            stop.wait(pause)
    finally:
        if purging is not None:
            purging.close()
    log.info("stopped", extra={"event": "purge_stopped"})


def _log(outcome: PurgeOutcome, seconds: float, logged: set[str]) -> None:
    for note in outcome.notes:
        if note not in logged:
            log.warning("%s", note, extra={"event": "rows_kept"})
    logged |= set(outcome.notes)
    for name, reason in outcome.failed.items():
        if f"{name}: {reason}" not in logged:
            logged.add(f"{name}: {reason}")
            log.error("%s could not be purged: %s", name, reason, extra={"event": "table_not_purged", "table": name})
    log.info("purged", extra={"event": "purged", **_facts(outcome), "seconds": round(seconds, 2)})


def _facts(outcome: PurgeOutcome) -> dict[str, object]:
    due = outcome.due
    return {
        "deleted": outcome.deleted,
        "dropped": outcome.dropped,
        "busy": outcome.busy,
        **({"failed": outcome.failed} if outcome.failed else {}),
        "confirmed": None if due is None else due.confirmed,
        "before": None if due is None or due.age.clock is AgeClock.NONE else due.cutoff,
    }


def _summary(table: str, options: PurgeOptions, outcome: PurgeOutcome) -> str:
    would = "would " if options.dry_run else ""
    parts = [f"{would}delete{'' if would else 'd'} {plural(outcome.deleted, 'row')} of {table}"]
    if outcome.dropped:
        names = ", ".join(f"{name} ({plural(rows, 'row')})" for name, rows in outcome.dropped.items())
        parts.append(f"{would}drop{'' if would else 'ped'} {names}")
    if outcome.busy:
        parts.append(f"{', '.join(outcome.busy)} in use: run the command again")
    return "; ".join(parts)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _warn(text: str, *, watch: bool) -> None:
    if watch:
        log.warning("%s", text, extra={"event": "purge_warning"})
    else:
        logs.print_line(f"cdc-publisher: warning: {text}")

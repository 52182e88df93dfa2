"""`recover`: replace a lost slot by a new one, and publish the events that it did not bring."""

import contextlib
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import Moment
from cdc.config.settings import Settings, require, require_slot
from cdc.delivery.positions import EXACTLY_ONCE
from cdc.kafka.cluster import Cluster
from cdc.logs.format import plain
from cdc.quantities import moment, plural

if TYPE_CHECKING:
    from cdc.recovery.run import Recovery, RecoveryStep
    from cdc.recovery.state import RecoveryOptions

_REACH_SECONDS = 10.0
_NAMED = 5
_NOT_NEEDED = "it is not needed: rows that are not confirmed stay in the table, and start sends them"


@click.command(
    epilog=examples(
        "cdc-publisher recover --dry-run", "cdc-publisher recover", "cdc-publisher recover --since 2026-01-31T10:00"
    )
)
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="Publish missing events since TIME: UTC, or an age such as 12h.  [default: since the last horizon in Kafka]",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    default=300.0,
    show_default=True,
    help="How long PostgreSQL may wait for open transactions before it can create the slot.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done without doing it.")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def recover(invocation: Invocation, *, since: int | None, wait: float, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Recover from a lost slot: publish the events that it did not bring, and create it again.

    For a replication slot that does not exist any more, was invalidated, or lost its WAL. Rows of the outbox that are
    not known to be published are compared with the topics by id; missing events are sent in the order of their
    commits, before everything that the new slot streams. Writers continue meanwhile.

    The command can be interrupted and called again. Until it has ended, `start` does not stream from the slot. Run
    `start` afterwards.

    Exit codes: 0 done, or an earlier call has done it; 1 rows were deleted before they were published, or an operator
    must decide; 75 temporary error, run the command again; 78 invalid configuration.
    """
    # Only this command needs the contract compiler.
    from cdc.recovery.state import RecoveryOptions

    settings = require(require_slot(invocation.settings(), "recover", _NOT_NEEDED))
    return run(settings, RecoveryOptions(since=since, wait=wait), dry_run=dry_run, yes=yes, as_json=as_json)


def run(settings: Settings, options: "RecoveryOptions", *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Run a recovery or backfill with a progress bar; return the exit code."""
    from cdc.recovery.run import Recovery

    Cluster(settings.kafka).reach(_REACH_SECONDS)
    with contextlib.closing(Recovery(settings, options)) as recovery:
        if recovery.found.finished is not None:
            done = recovery.found.finished
            click.echo(_json(done, finished=True) if as_json else f"done before, at {done['at']}: {_done(done)}")
            return 0
        _show(recovery.survey())
        facts = _facts(recovery)
        if not as_json:
            for line in _lines(recovery, facts):
                click.echo(line)
        if settings.outbox.messages is not None:
            text = "warning: events that are messages are in no table: those that the slot did not bring are lost"
            click.echo(text, err=True)
        if dry_run:
            if as_json:
                click.echo(_json(facts, dry_run=True))
            return 1 if recovery.losses else 0
        if sys.stdin.isatty() and not yes:  # a script has no one to ask
            click.confirm("Send these events and create the slot?", abort=True, err=True)
        _show(recovery.heal())
        before, losses = facts["deleted_between"], _losses(recovery)
        if losses["deleted_between"] != before and not as_json:
            click.echo(_warning(losses))
        click.echo(_json({**facts, **recovery.done, **losses}, dry_run=False) if as_json else _done(recovery.done))
        return 1 if recovery.losses else 0


def _show(steps: "Iterable[RecoveryStep]") -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task("reading rows", total=None)
        name = ""
        for step in steps:
            if step.name != name:  # a task keeps the total of the step before
                bar.remove_task(task)
                name, task = step.name, bar.add_task(step.name, total=None)
            bar.update(task, total=step.total or None, completed=step.done)


def _facts(recovery: "Recovery") -> dict[str, object]:
    selection, count, found = recovery.selection, recovery.count, recovery.found
    return {
        "slot": found.mark.slot,
        "lost": found.lost,
        "bound": str(selection.bound),
        "order": str(selection.order.kind),
        "order_exact": selection.order.exact,
        "unordered_keys": recovery.unordered,
        "unordered": [
            {"topic": one.topic, "key": one.key.decode(errors="backslashreplace"), "events": one.events}
            for one in recovery.unordered_keys
        ],
        "candidates": count.candidates,
        "missing": count.missing,
        "perhaps_again": count.perhaps_again,
        "from": _time(count.first),
        "to": _time(count.last),
        "guarantee": found.mark.guarantee,
        **_losses(recovery),
    }


def _losses(recovery: "Recovery") -> dict[str, object]:
    losses = recovery.losses
    return {
        "deleted": losses.rows,
        "deleted_between": losses.between or None,
        "deleted_tables": losses.tables,
        "deleted_text": str(losses) if losses else None,
    }


def _lines(recovery: "Recovery", facts: Mapping[str, object]) -> Iterable[str]:
    if facts["lost"]:
        yield str(facts["lost"])
    count = plural(int(str(facts["missing"])), "missing event")
    when = f", from {facts['from']} to {facts['to']}" if facts["from"] else ""
    yield f"{count} of {plural(int(str(facts['candidates'])), 'row')} since {facts['bound']}{when}"
    yield f"order: {facts['order']}"
    if unordered := recovery.unordered:
        named = [
            f"{plain(one.key.decode(errors='backslashreplace'))} ({plural(one.events, 'event')}, topic {one.topic})"
            for one in recovery.unordered_keys[:_NAMED]
        ]
        more = [f"{unordered - len(named)} more"] if unordered > len(named) else []
        yield (
            f"warning: the order of {plural(unordered, 'key')} with several missing events may not be that of their"
            f" commits: {', '.join([*named, *more])}; a column that numbers rows prevents this:"
            " cdc-publisher outbox init --order"
        )
    if facts["perhaps_again"]:
        yield f"{facts['perhaps_again']} of them may have been published before: their topic has deleted old records"
    if facts["deleted_text"]:
        yield _warning(facts)
    if facts["guarantee"] != EXACTLY_ONCE:
        yield "an old publisher that is frozen may still send what it has queued: end it, or such events come twice"


def _warning(facts: Mapping[str, object]) -> str:
    return f"warning: {facts['deleted_text']}, perhaps before they were published"


def _done(done: Mapping[str, object]) -> str:
    dead = f", {done['dead_lettered']} of them to the dead-letter topic" if done["dead_lettered"] else ""
    return (
        f"sent {plural(int(str(done['sent'])), 'event')}{dead}; slot {done['slot']} begins at {done['start']};"
        " now run: cdc-publisher start"
    )


def _json(facts: Mapping[str, object], **more: object) -> str:
    return orjson.dumps({**facts, **more}).decode()


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else moment(milliseconds / 1000, "seconds")

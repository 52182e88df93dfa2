"""`dlq`: list, show and replay dead letters."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cdc.cli import letters
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.config.settings import Settings, require
from cdc.dead_letters.topic import DeadLetterTopic, LetterIndex
from cdc.errors import CdcError, KafkaError
from cdc.kafka.cluster import Cluster
from cdc.logs.format import plain
from cdc.quantities import plural
from cdc.records.dead_letters import Wanted

_REACH_SECONDS: Final = 10.0
_limit = click.option("--limit", type=click.IntRange(1), metavar="N", help="Limit to the N oldest.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")


@click.group()
def dlq() -> None:
    """List, show or replay events that could not be published.

    With [delivery] on_poison = "dead-letter", the publisher sends such events to the topic [topics] dead_letter and
    continues.
    """


@contextlib.contextmanager
def _found(settings: Settings, wanted: Wanted) -> Iterator[tuple[DeadLetterTopic, LetterIndex]]:
    """Open the dead-letter topic and index its current letters that match `wanted`."""
    Cluster(require(settings, postgres=False).kafka).reach(_REACH_SECONDS)
    with contextlib.closing(DeadLetterTopic(settings)) as topic, contextlib.closing(LetterIndex(wanted)) as index:
        index.take(topic.read(wanted.since))
        yield topic, index


@dlq.command(
    "list", epilog=examples("cdc-publisher dlq list", "cdc-publisher dlq list --since 12h --error contract-missing")
)
@letters.filters
@click.option("--all", "replayed", is_flag=True, help="Include replayed letters.")
@_limit
@_json
@click.pass_obj
def list_(invocation: Invocation, /, replayed: bool, limit: int | None, as_json: bool, **given: Any) -> None:
    """List dead letters by position; repeated letters of an event are listed once."""
    with _found(invocation.settings(), letters.wanted(**given)) as (topic, index):
        entries = index.entries(replayed=replayed, limit=limit)
        if as_json:
            for entry in entries:
                click.echo(letters.line({**letters.facts(entry), "replayed": entry.replayed}))
            return
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        shown = 0
        for line in letters.table(entries, index.widths(), replayed=replayed, columns=columns):
            click.echo(line)
            shown += 1
        shown -= bool(shown)  # without the title line
        if not shown:
            click.echo(f"no dead letters in {topic.name} that {'match' if any(given.values()) else 'wait for replay'}")
        more = index.count(replayed=replayed) - shown
        if more:
            click.echo(f"{more} more")


@dlq.command(epilog=examples("cdc-publisher dlq show 9f36c555-1b51-469d-9e44-d764c381c860"))
@click.argument("identity", metavar="ID")
@_json
@click.pass_obj
def show(invocation: Invocation, identity: str, as_json: bool) -> None:
    """Show one dead letter in full. ID is the event's id or its position."""
    with _found(invocation.settings(), letters.wanted([identity])) as (topic, index):
        entries = list(index.entries(replayed=True))
        for entry in entries:
            for letter in topic.fetch([entry]).values():
                if as_json:
                    click.echo(letters.line(letters.all_facts(entry, letter)))
                else:
                    click.echo("\n".join(letters.full(entry, letter, topic.name)))
        if not entries:
            raise _unknown(topic, identity)


@dlq.command(
    epilog=examples("cdc-publisher dlq replay --all --dry-run", "cdc-publisher dlq replay --type OrderPlaced --yes")
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@letters.filters
@click.option("--all", "everything", is_flag=True, help="Replay all letters that were not replayed yet.")
@_limit
@click.option("--dry-run", is_flag=True, help="Show what would be done without doing it.")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@click.pass_obj
def replay(
    invocation: Invocation,
    /,
    ids: tuple[str, ...],
    everything: bool,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    **given: Any,
) -> int:
    """Encode dead letters with the current contracts, and send them to their topics.

    Select letters by ID (the event's id or its position), by options that all must match, or with --all. Each event and
    its marker are committed in one Kafka transaction, so no event is sent twice, even if the command is interrupted and
    run again. Events that still cannot be sent are reported and remain dead letters.

    A replayed event has its original key, timestamp and headers, and the header cdc-replayed. It arrives AFTER later
    events of its key.

    Exit codes: 0 all selected events were sent; 1 some could not be sent; 75 temporary error, run the command again; 78
    invalid configuration.
    """
    chosen = any(value is not None for value in given.values())
    if everything == bool(ids or chosen):
        raise click.UsageError("select dead letters by ID, by options, or with --all")
    # Only this command needs the contract compiler.
    from cdc.dead_letters.letters import Letters
    from cdc.dead_letters.resend import Resend

    settings = invocation.settings()
    with _found(settings, letters.wanted(ids, **given)) as (topic, index):
        _check(topic, index, ids)
        count = min(index.count(replayed=False), limit or sys.maxsize)
        if not count:
            click.echo(f"nothing to replay in {topic.name}")
            return 0
        if sys.stdin.isatty() and not (yes or dry_run):  # a script has no one to ask
            key = "its key" if count == 1 else "their keys"
            click.confirm(f"Send {plural(count, 'dead letter')} now, after later events of {key}?", abort=True)
        entries = partial(index.entries, replayed=False, limit=limit)
        with contextlib.closing(
            Resend(settings, partial(Letters, settings, topic, entries), dry_run=dry_run)
        ) as resend:
            if not dry_run:
                resend.begin()
                # Other replays are fenced now; read the markers that they wrote in the meantime.
                index.take(topic.read(), markers_only=True)
            with _progress(count, shown=not dry_run) as bar:
                for outcome in resend.run():
                    if outcome.line:
                        click.echo(outcome.line, err=outcome.stays)
                    bar.advance(bar.task_ids[0])
            click.echo(_summary(resend.sent, resend.stays, dry_run=dry_run))
            return 1 if resend.stays else 0


def _check(topic: DeadLetterTopic, index: LetterIndex, ids: tuple[str, ...]) -> None:
    """Print which of `ids` were replayed before. Raises KafkaError if an id is unknown."""
    known: set[str] = set()
    for entry in index.entries(replayed=True) if ids else ():
        known |= {entry.id, entry.position}
        if entry.replayed:
            click.echo(f"{plain(entry.id or entry.position)} was replayed {entry.replayed}")
    for identity in ids:
        if identity not in known:
            raise _unknown(topic, identity)


def _unknown(topic: DeadLetterTopic, identity: str) -> CdcError:
    return KafkaError(
        f"topic {topic.name!r} has no dead letter with id or position {identity!r}",
        hint="list them with: cdc-publisher dlq list --all",
    )


def _summary(sent: int, stays: int, *, dry_run: bool) -> str:
    summary = f"{'would replay' if dry_run else 'replayed'} {plural(sent, 'dead letter')}"
    if sent:
        summary += f", {'' if sent == 1 else 'each '}after later events of its key"
    return f"{summary}; {stays} not replayed" if stays else summary


def _progress(count: int, *, shown: bool) -> Progress:
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not (shown and sys.stderr.isatty()))
    bar.add_task("", total=count)
    return bar

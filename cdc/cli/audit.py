"""`audit`: whether the topics hold what the outbox table says was committed; and sending what they do not."""

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

from cdc.audit.books import Finding
from cdc.audit.range import Range
from cdc.audit.run import Asked, Auditing
from cdc.audit.verdicts import FINDINGS
from cdc.cli import findings
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import LsnType, Moment
from cdc.config.settings import Settings, require
from cdc.kafka.cluster import Cluster
from cdc.lsn import LSN
from cdc.postgres.connection import connect
from cdc.quantities import plural

_REACH_SECONDS: Final = 10.0


@click.command(
    epilog=examples(
        "cdc-publisher audit",
        "cdc-publisher audit --since 24h --json",
        "cdc-publisher audit --since 24h --repair --dry-run",
    )
)
@click.option("--since", type=Moment(), metavar="TIME", help="Rows as old as TIME (UTC) or an age (12h), or newer.")
@click.option("--until", type=Moment(), metavar="TIME", help="Not newer than TIME.")
@click.option("--from-lsn", type=LsnType(), help="Committed at this LSN or later.")
@click.option("--to-lsn", type=LsnType(), help="Not committed after this LSN.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only events of this id; repeatable.")
@click.option("--from-id", metavar="ID", help="Ids from this one on, where ids are ordered.")
@click.option("--to-id", metavar="ID", help="Ids up to this one.")
@click.option("--topic", "topics", multiple=True, metavar="NAME", help="Only this topic; repeatable.")
@click.option("--stream", "streams", multiple=True, metavar="HEX", help="Positions of this stream are ours, too.")
@click.option("--age", metavar="COLUMN", help="The column that says how old a row is.  [default: created_at]")
@click.option("--sparse", is_flag=True, help="Rows are deleted in any order: take no record for a phantom.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="Show N findings.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--repair", is_flag=True, help="Send what is missing, behind the later events of its keys.")
@click.option("--dry-run", is_flag=True, help="With --repair: only say what would become of each.")
@click.option("--yes", is_flag=True, help="With --repair: do not ask, as one is on a terminal.")
@click.pass_obj
def audit(
    invocation: Invocation,
    /,
    topics: tuple[str, ...],
    streams: tuple[str, ...],
    age: str | None,
    sparse: bool,
    limit: int,
    as_json: bool,
    repair: bool,
    dry_run: bool,
    yes: bool,
    ids: tuple[str, ...],
    **given: Any,
) -> int:
    """Compare the outbox table with the topics: missing, duplicate, out of order, and what was never committed.

    The publisher may run meanwhile or not. What the slot has still to confirm is in flight, and no finding; nor is what
    waits in the dead-letter topic. What stands outside of a range is not judged.

    Exit codes: 0 nothing was found; 1 something was, or could not be repaired; 75 temporary: run it again; 78
    configuration.
    """
    if (dry_run or yes) and not repair:
        raise click.UsageError("--dry-run and --yes are for --repair")
    wanted = Range(ids=frozenset(ids), **given)
    settings = require(invocation.settings())
    Cluster(settings.kafka).reach(_REACH_SECONDS)
    asked = Asked(wanted=wanted, topics=frozenset(topics), streams=streams, age=age, sparse=sparse)
    with (
        connect(settings.postgres.dsn, application_name="cdc-publisher audit") as connection,
        contextlib.closing(Auditing(settings, asked, connection)) as auditing,
    ):
        _run(auditing)
        total = sum(auditing.counts[kind] for kind in FINDINGS)
        shown = list(auditing.books.findings(FINDINGS, limit))
        if as_json:
            repaired = _repair(settings, auditing, dry=dry_run, yes=yes, told=False) if repair else None
            click.echo(orjson.dumps(_facts(auditing, wanted, topics, shown, repaired)).decode())
        else:
            _print(auditing, shown, total)
            repaired = _repair(settings, auditing, dry=dry_run, yes=yes, told=True) if repair else None
    left = total - (repaired["repaired"] + repaired["found_meanwhile"] if repaired and not dry_run else 0)
    return 1 if left else 0


def _run(auditing: Auditing) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with _progress(*columns) as bar:
        task = bar.add_task("", total=None)
        for step in auditing.run():
            bar.update(task, description=step.name, total=step.total, completed=step.done)


def _progress(*columns: ProgressColumn) -> Progress:
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _print(auditing: Auditing, shown: list[Finding], total: int) -> None:
    for line in findings.counts(auditing.counts):
        click.echo(line)
    if shown:
        findings.listed(shown)
    more = auditing.books.finding_count() - len(shown)
    if more:
        click.echo(f"{more} more; --limit shows more of them")
    for line in findings.notes(auditing.notes):
        click.echo(line)
    click.echo(plural(total, "finding") if total else "nothing is wrong")


def _facts(
    auditing: Auditing, wanted: Range, topics: tuple[str, ...], shown: list[Finding], repaired: dict[str, int] | None
) -> dict[str, object]:
    asked = {name: getattr(wanted, name) for name in ("since", "until", "from_id", "to_id")}
    asked |= {name: _text(getattr(wanted, name)) for name in ("from_lsn", "to_lsn")}
    return {
        "stream": auditing.stream,
        "range": {**asked, "ids": sorted(wanted.ids), "topics": list(topics)},
        "topics": auditing.names,
        "counts": auditing.counts,
        "findings": [findings.facts(one) for one in shown],
        "findings_not_shown": auditing.books.finding_count() - len(shown),
        "not_judged": [{"what": what, "count": number, "why": why} for what, number, why in auditing.notes],
        "repair": repaired,
    }


def _text(lsn: LSN | None) -> str | None:
    return None if lsn is None else str(lsn)


def _repair(settings: Settings, auditing: Auditing, *, dry: bool, yes: bool, told: bool) -> dict[str, int]:
    """Send what is missing; returns what became of it."""
    missing = auditing.books.missing_count()
    done = {"missing": missing, "repaired": 0, "found_meanwhile": 0, "stays": 0}
    if not missing:
        if told:
            click.echo("nothing to repair")
        return done
    if sys.stdin.isatty() and not (yes or dry):  # a script that asked for it meant it
        click.confirm(
            f"Send {plural(missing, 'event')} again, behind the later events of the same keys?", abort=True, err=True
        )
    # Contracts and their compiler are for this only.
    from cdc.dead_letters.resend import Resend
    from cdc.recovery.repair import MissingEvents, look_again

    source, name = partial(MissingEvents, settings, auditing), f"repair-{settings.postgres.slot}"
    with contextlib.closing(Resend(settings, source, dry_run=dry, name=name)) as resend:
        if not dry:
            resend.begin()
            done["found_meanwhile"] = missing - look_again(auditing, settings.topics.dead_letter)
        with _progress(TextColumn("repairing"), BarColumn(), MofNCompleteColumn()) as bar:
            task = bar.add_task("", total=missing)
            for one in resend.run():
                if one.line and (told or one.stays):
                    click.echo(one.line, err=one.stays)
                bar.advance(task)
        done |= {"repaired": resend.sent, "stays": resend.stays}
    if told:
        click.echo("".join(_summary(done, dry=dry)))
    return done


def _summary(done: dict[str, int], *, dry: bool) -> Iterator[str]:
    yield f"{'would repair' if dry else 'repaired'} {plural(done['repaired'], 'event')}"
    if done["found_meanwhile"]:
        yield f"; {done['found_meanwhile']} came meanwhile"
    if done["stays"]:
        yield f"; {done['stays']} stay{'s' if done['stays'] == 1 else ''}"

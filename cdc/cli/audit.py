"""`audit`: compare the outbox table with the topics, and repair missing events."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

from cdc.audit.books import AuditFinding
from cdc.audit.range import Range
from cdc.audit.run import Asked, Auditing
from cdc.audit.verdicts import FINDINGS
from cdc.cli import findings
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import LsnType, Moment
from cdc.config.settings import Settings, require, require_slot
from cdc.errors import CdcError
from cdc.kafka.cluster import Cluster
from cdc.logs import setup as logs
from cdc.lsn import LSN
from cdc.postgres.connection import LONG_SECONDS, connect
from cdc.quantities import plural

_REACH_SECONDS: Final = 10.0
_OF_TOPICS: Final = ("records", "foreign")
"""Not added up: parts of an outbox share topics, and each counts the records of the others as foreign."""


@click.command(
    epilog=examples(
        "cdc-publisher audit",
        "cdc-publisher audit --since 24h --json",
        "cdc-publisher audit --since 24h --repair --dry-run",
        "cdc-publisher --config fleet.toml audit units",
    )
)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Audit rows created at TIME or later; UTC, or an age such as 12h."
)
@click.option("--until", type=Moment(), metavar="TIME", help="Audit rows created at TIME or earlier.")
@click.option("--from-lsn", type=LsnType(), help="Audit transactions committed at this LSN or later.")
@click.option("--to-lsn", type=LsnType(), help="Audit transactions committed at this LSN or earlier.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Audit only the event with this id; repeatable.")
@click.option("--from-id", metavar="ID", help="Audit ids from this one on, if ids are ordered.")
@click.option("--to-id", metavar="ID", help="Audit ids up to this one.")
@click.option("--topic", "topics", multiple=True, metavar="NAME", help="Audit only this topic; repeatable.")
@click.option(
    "--stream", "streams", multiple=True, metavar="HEX", help="Also audit records of this stream; repeatable."
)
@click.option("--age", metavar="COLUMN", help="Column with a row's creation time.  [default: created_at]")
@click.option("--sparse", is_flag=True, help="Report no phantoms, because rows are deleted in any order.")
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="Show at most N findings."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--repair", is_flag=True, help="Send missing events, after later events of the same keys.")
@click.option("--dry-run", is_flag=True, help="With --repair: show what would be done without doing it.")
@click.option("--yes", is_flag=True, help="With --repair: skip the confirmation prompt.")
@click.pass_obj
def audit(
    invocation: Invocation,
    /,
    folder: Path | None,
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
    """Compare the outbox table with the topics.

    Events that are messages have no row: of them, and so without a table of all, positions and sequences are judged.

    Reports missing, duplicate, reordered and misplaced events, and records without a row. The publisher may be running
    or not. Events that the slot has not confirmed yet, and events in the dead-letter topic, are not findings. Rows and
    records outside the given range are not audited.

    With FOLDER, which holds the units of a fleet, audits every unit, and adds up.

    Exit codes: 0 no findings; 1 findings, or failed repairs; 75 temporary error, run the command again; 78 invalid
    configuration.
    """
    if (dry_run or yes) and not repair:
        raise click.UsageError("--dry-run and --yes need --repair")
    if folder is not None and repair:
        raise click.UsageError("--repair takes one unit: name its file with --config, and no FOLDER")
    wanted = Range(ids=frozenset(ids), **given)
    asked = Asked(wanted=wanted, topics=frozenset(topics), streams=streams, age=age, sparse=sparse)
    if folder is not None:
        return _audit_units(invocation, folder, asked, limit, as_json=as_json)
    settings = require(invocation.settings())
    with _audited(settings, asked) as auditing:
        total = sum(auditing.counts[kind] for kind in FINDINGS)
        shown = list(auditing.books.findings(FINDINGS, limit))
        if as_json:
            repaired = _repair(settings, auditing, dry=dry_run, yes=yes, verbose=False) if repair else None
            click.echo(orjson.dumps(_facts(auditing, asked, shown, repaired)).decode())
        else:
            _print(auditing, shown, total)
            repaired = _repair(settings, auditing, dry=dry_run, yes=yes, verbose=True) if repair else None
    left = total - (repaired["repaired"] + repaired["found_meanwhile"] if repaired and not dry_run else 0)
    return 1 if left else 0


@contextlib.contextmanager
def _audited(settings: Settings, asked: Asked) -> Iterator[Auditing]:
    """Audit an outbox; the result can be read until the end. Raises CdcError."""
    if asked.wanted.by_lsn:
        require_slot(settings, "--from-lsn or --to-lsn", "select rows by --since, --until or --id")
    Cluster(settings.kafka).reach(_REACH_SECONDS)
    with (
        connect(
            settings.postgres.dsn, statement_seconds=LONG_SECONDS, application_name="cdc-publisher audit"
        ) as connection,
        contextlib.closing(Auditing(settings, asked, connection)) as auditing,
    ):
        _run(auditing)
        yield auditing


def _audit_units(invocation: Invocation, folder: Path, asked: Asked, limit: int, *, as_json: bool) -> int:
    """Audit every unit; one that cannot be audited does not keep the others from it."""
    from cdc.fleet.folder import Folder

    units = Folder(folder, *invocation.fleet()).units()
    counts: Counter[str] = Counter()
    audited: dict[str, object] = {}
    failed: dict[str, str] = {name: "; ".join(unit.problems) for name, unit in units.items() if not unit.settings}
    codes = {78} if failed else set[int]()
    for name, unit in units.items():
        if unit.settings is None:
            continue
        try:
            with _audited(unit.settings, asked) as auditing:
                counts.update({kind: number for kind, number in auditing.counts.items() if kind not in _OF_TOPICS})
                shown = list(auditing.books.findings(FINDINGS, limit))
                audited[name] = _facts(auditing, asked, shown, None)
                if not as_json:
                    click.echo(f"unit {name}")
                    _print(auditing, shown, sum(auditing.counts[kind] for kind in FINDINGS))
        except CdcError as error:
            failed[name] = str(error)
            codes.add(error.exit_code)
    total = sum(counts[kind] for kind in FINDINGS)
    if as_json:
        click.echo(orjson.dumps({"counts": counts, "units": audited, "failed": failed}).decode())
    else:
        click.echo(f"all {plural(len(audited), 'unit')}")
        for line in [*findings.counts(counts), plural(total, "finding") if total else "no findings"]:
            click.echo(line)
    for name, why in failed.items():
        logs.print_line(f"cdc-publisher: unit {name} was not audited: {why}")
    return 1 if total else max(codes, default=0)


def _run(auditing: Auditing) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with _progress(*columns) as bar:
        task = bar.add_task("", total=None)
        for step in auditing.run():
            bar.update(task, description=step.name, total=step.total, completed=step.done)


def _progress(*columns: ProgressColumn) -> Progress:
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _print(auditing: Auditing, shown: list[AuditFinding], total: int) -> None:
    for line in findings.counts(auditing.counts):
        click.echo(line)
    if shown:
        findings.print_findings(shown)
    more = auditing.books.finding_count() - len(shown)
    if more:
        click.echo(f"{more} more; --limit shows more of them")
    for line in findings.notes(auditing.notes):
        click.echo(line)
    click.echo(plural(total, "finding") if total else "no findings")


def _facts(
    auditing: Auditing,
    given: Asked,
    shown: list[AuditFinding],
    repaired: dict[str, int] | None,
) -> dict[str, object]:
    wanted = given.wanted
    asked = {name: getattr(wanted, name) for name in ("since", "until", "from_id", "to_id")}
    asked |= {name: _text(getattr(wanted, name)) for name in ("from_lsn", "to_lsn")}
    return {
        "stream": auditing.stream,
        "range": {**asked, "ids": sorted(wanted.ids), "topics": sorted(given.topics)},
        "topics": auditing.names,
        "counts": auditing.counts,
        "findings": [findings.facts(one) for one in shown],
        "findings_not_shown": auditing.books.finding_count() - len(shown),
        "not_judged": [{"what": what, "count": number, "why": why} for what, number, why in auditing.notes],
        "repair": repaired,
    }


def _text(lsn: LSN | None) -> str | None:
    return None if lsn is None else str(lsn)


def _repair(settings: Settings, auditing: Auditing, *, dry: bool, yes: bool, verbose: bool) -> dict[str, int]:
    """Send missing events and return the number of each outcome."""
    missing = auditing.books.missing_count()
    done = {"missing": missing, "repaired": 0, "found_meanwhile": 0, "stays": 0}
    if not missing:
        if verbose:
            click.echo("nothing to repair")
        return done
    if sys.stdin.isatty() and not (yes or dry):  # a script has no one to ask
        click.confirm(
            f"Send {plural(missing, 'event')} again, after later events of the same keys?", abort=True, err=True
        )
    # Only repairs need the contract compiler.
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
                if one.line and (verbose or one.stays):
                    click.echo(one.line, err=one.stays)
                bar.advance(task)
        done |= {"repaired": resend.sent, "stays": resend.stays}
    if verbose:
        click.echo("".join(_summary(done, dry=dry)))
    return done


def _summary(done: dict[str, int], *, dry: bool) -> Iterator[str]:
    yield f"{'would repair' if dry else 'repaired'} {plural(done['repaired'], 'event')}"
    if done["found_meanwhile"]:
        yield f"; {done['found_meanwhile']} arrived in the meantime"
    if done["stays"]:
        yield f"; {done['stays']} not repaired"

"""`schema infer`: write contracts from the rows of the outbox table."""

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.config.settings import require
from cdc.inference.job import Job, Problem, Report
from cdc.inference.rows import opened
from cdc.inference.schema import Wishes
from cdc.quantities import count


@click.command(
    epilog=examples(
        "cdc-publisher schema infer",
        "cdc-publisher schema infer --type OrderPlaced --sample 10000 --enums",
        "cdc-publisher schema infer --update",
    )
)
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Infer the contract of this event type; repeatable."
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read N rows of each type from the whole table, and its longest, shortest and oldest.  [default: all rows]",
)
@click.option("--enums", is_flag=True, help="Make enums of texts with few distinct values.")
@click.option("--doubles", is_flag=True, help="Make doubles, not decimals, of fractions that doubles hold exactly.")
@click.option("--update", is_flag=True, help="Add the fields that existing contracts lack.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the contracts.  [default: [avro] schemas]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def infer(
    invocation: Invocation,
    types: tuple[str, ...],
    sample: int | None,
    enums: bool,
    doubles: bool,
    update: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Write a contract for each event type from the rows that are in the outbox table.

    Every field is optional. Integers become long, fractions decimal, objects records, or maps if their keys vary.
    Texts stay strings unless at least 20 distinct values are all dates, timestamps in UTC or UUIDs. The output, and
    the doc of each field, say what is uncertain: check it before you use a contract.

    A contract is written only if every row that was read is encoded with it, and decoded to the same JSON value. An
    existing contract is kept; with --update, fields that it lacks are added at the end of its records. If rows do not
    match it for another reason, they are listed, and no file is written.

    Exit codes: 0 each event type has a contract; 1 a contract was not written or updated.
    """
    settings = require(invocation.settings(), kafka=False)
    folder = output or settings.avro.schemas
    with opened(settings) as table:
        job = Job(settings, table, folder, sample=sample, wishes=Wishes(enums, doubles), updates=update)
        report = job.run(types)
    if as_json:
        click.echo(json.dumps(_document(report), indent=2))
    else:
        _show(report)
    return 1 if report.problems else 0


def _document(report: Report) -> dict[str, Any]:
    since = [each.rows.since for each in report.outcomes if each.rows.since]
    return {
        "rows": sum(each.count for each in report.outcomes),
        "since": min(since, default=None),
        "types": [
            {
                "type": each.event_type,
                "name": each.contract.name,
                "file": str(each.contract.path),
                "done": each.contract.done,
                "rows": each.count,
                "of": each.rows.total,
                "since": each.rows.since,
                "uncertain": [{"path": remark.path, "reason": remark.text} for remark in each.contract.remarks],
            }
            for each in report.outcomes
        ],
        "settings": {"types": report.types},
        "problems": [_problem(problem) for problem in report.problems],
    }


def _problem(problem: Problem) -> dict[str, str]:
    row = {} if problem.row_id is None else {"id": problem.row_id}
    return {**row, "type": problem.event_type, "problem": problem.problem}


def _show(report: Report) -> None:
    if not report.outcomes:
        click.echo("the outbox table has no rows")
        return
    table = Table("type", "rows read", "of", "since", "contract", "file", box=box.SIMPLE_HEAD)
    for each in report.outcomes:
        read = [count(each.count), count(each.rows.total), each.rows.since or "-"]
        table.add_row(each.event_type, *read, each.contract.done, str(each.contract.path))
    # A pipe or file has no width.
    Console(width=None if sys.stdout.isatty() else 250).print(table, soft_wrap=not sys.stdout.isatty())
    shown = set()
    for each in report.outcomes:
        for remark in each.contract.remarks if each.contract.name not in shown else ():
            click.echo(f"uncertain: {each.event_type} {remark.path}: {remark.text}")
        shown.add(each.contract.name)
    for problem in report.problems:
        click.echo(" ".join(filter(None, [problem.row_id, problem.event_type])) + f": {problem.problem}", err=True)
    if report.types:
        entries = ", ".join(f"{json.dumps(name)} = {json.dumps(to)}" for name, to in report.types.items())
        click.echo(f"add to [avro] in the settings file: types = {{ {entries} }}")
    if any(each.contract.done in ("written", "updated") for each in report.outcomes):
        click.echo("review the contracts, then run: cdc-publisher schema check --table")

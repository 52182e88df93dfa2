"""`schema`: contracts, and what the registry, the outbox table and earlier versions say to them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from cdc.avro import compatibility, files
from cdc.avro.contracts import Contract
from cdc.cli.desk import Desk
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.quantities import plural

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_topics = click.option(
    "--topic", "topics", multiple=True, metavar="NAME", help="A topic the contracts are for; repeatable."
)


@click.group()
def schema() -> None:
    """List, check, register or show contracts.

    A subject of the strategies topic-record-name and topic-name needs a topic. It is the one of [topics] name when that
    has no placeholder. Otherwise each --topic counts for each contract; without --topic the outbox table tells which
    types go to which topics by the rows it holds now, if [postgres] dsn is set.
    """


@schema.command(
    "list", epilog=examples("cdc-publisher schema list", "cdc-publisher schema list --topic outbox.event.order --json")
)
@_topics
@_json
@click.pass_obj
def list_(invocation: Invocation, topics: tuple[str, ...], as_json: bool) -> None:
    """List the contracts with their subjects, and their ids when there is a registry."""
    settings = invocation.settings()
    desk = Desk(settings, topics)
    rows = []
    for contract in desk.contracts:
        # Without a topic it has no subject, but is a contract all the same.
        for name in desk.subjects(contract) or [""]:
            found = desk.lookup(contract, name) if name else None
            rows.append(
                {
                    "type": contract.name,
                    "subject": name or None,
                    "id": found and found.id,
                    "fingerprint": contract.fingerprint,
                    "file": contract.source,
                }
            )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        _print(rows)
    else:
        click.echo(f"no contracts in {settings.avro.schemas}")


@schema.command(
    epilog=examples(
        "cdc-publisher schema check --table", "cdc-publisher schema check --against main/schemas --mode FULL"
    )
)
@click.option("--table", is_flag=True, help="Also try every row that is in the outbox table now.")
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also compare with the contracts of another folder, without a registry.",
)
@click.option(
    "--mode",
    type=click.Choice(compatibility.MODES, case_sensitive=False),
    default="BACKWARD",
    show_default=True,
    help="What --against demands.",
)
@_topics
@_json
@click.pass_obj
def check(
    invocation: Invocation, table: bool, against: Path | None, mode: str, topics: tuple[str, ...], as_json: bool
) -> int:
    """Check that contracts parse, are named by [avro] types rightly, and are compatible with the registry, if any.

    The folder of --against may hold several versions of a type, in files or subfolders; the order of their paths,
    numbers by value, is their age, the last being the newest. BACKWARD: the new contract reads what the old one wrote;
    FORWARD: the old one reads what the new one writes; FULL: both. The newest old version counts, with _TRANSITIVE all.

    Exit code 1 when something does not hold.
    """
    settings = invocation.settings()
    found: list[dict[str, Any]] = []
    checked: dict[str, int] = {}
    try:
        desk = Desk(settings, topics)
        checked["contracts"] = len(desk.contracts)
        if against:
            found += _against(desk, against, mode)
    except ConfigError as error:
        found += [{"check": "files", "problem": problem} for problem in error.problems]
    else:
        if settings.schema_registry.url:
            found += desk.registry_problems(checked)
        if table:
            found += desk.misfits(checked)
    holds = not found
    if as_json:
        click.echo(json.dumps({"holds": holds, "checked": checked, "problems": found}, indent=2))
    else:
        for problem in found:
            click.echo(_line(problem), err=True)
        click.echo(f"{', '.join(f'{number} {what}' for what, number in checked.items())}: {_verdict(len(found))}")
    return 0 if holds else 1


@schema.command(
    epilog=examples(
        "cdc-publisher schema register --dry-run", "cdc-publisher schema register OrderPlaced OrderCancelled"
    )
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and whether the registry would take it.")
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@_topics
@_json
@click.pass_obj
def register(
    invocation: Invocation, dry_run: bool, types: tuple[str, ...], topics: tuple[str, ...], as_json: bool
) -> int:
    """Register contracts, all of the folder or those of TYPE, after the types of other files that they use.

    What is registered already stays as it is. Nothing is registered when the registry would refuse one of them; a
    contract whose topic is not known is left out. Exit code 1 in both cases.
    """
    settings = invocation.settings()
    desk = Desk(settings, topics, types)
    if desk.registry is None:
        raise ConfigError(
            "[schema_registry] url is required: set it in the settings file, or as CDC_SCHEMA_REGISTRY__URL"
        )
    rows: list[dict[str, Any]] = []
    homeless = [_without_topic(contract) for contract in desk.contracts if not desk.subjects(contract)]
    refusals = list(desk.registry_problems({}))
    problems = [*homeless, *refusals]
    for contract in desk.contracts:
        for name in desk.subjects(contract):
            known = desk.lookup(contract, name)
            row: dict[str, Any] = {"type": contract.name, "subject": name, "id": known and known.id, "done": "there"}
            if known is None:
                row["done"] = "refused" if refusals else "would be registered"
            if known is None and not dry_run and not refusals:
                row |= {"id": desk.register(contract, name).id, "done": "registered"}
            rows.append(row)
    if as_json:
        click.echo(json.dumps({"schemas": rows, "problems": problems}, indent=2))
    else:
        if rows:
            _print(rows)
        for problem in problems:
            click.echo(_line(problem), err=True)
    return 1 if problems else 0


@schema.command(
    epilog=examples("cdc-publisher schema show OrderPlaced", "cdc-publisher schema show OrderPlaced --compiled")
)
@click.argument("event_type", metavar="TYPE")
@click.option("--compiled", is_flag=True, help="The Python source that encodes it.")
@_json
@click.pass_obj
def show(invocation: Invocation, event_type: str, compiled: bool, as_json: bool) -> None:
    """Show the contract of an event type; with the types of other files written out in --json."""
    settings = invocation.settings()
    desk = Desk(settings, (), (event_type,))
    (contract,) = desk.contracts
    source = _compiled(contract, settings) if compiled else None
    if not as_json:
        click.echo((source if source is not None else contract.text).rstrip("\n"))
        return
    facts = {
        "type": contract.name,
        "fingerprint": contract.fingerprint,
        "file": contract.source,
        "references": contract.references,
        "schema": json.loads(desk.definitions[contract.name].whole),
    }
    click.echo(json.dumps(facts | ({"compiled": source} if compiled else {}), indent=2))


def _against(desk: Desk, folder: Path, mode: str) -> Iterator[dict[str, Any]]:
    earlier = files.versions(folder)
    for contract in desk.contracts:
        olds = [(str(version.path), version.schema) for version in earlier.get(contract.name, ())]
        for problem in compatibility.check(mode.upper(), contract.schema, olds):
            yield {"check": "against", "type": contract.name, "problem": problem}


def _compiled(contract: Contract, settings: Settings) -> str:
    from cdc.avro.compiled import compiler
    from cdc.avro.mapping.rules import Rules

    return compiler.source(contract.schema, Rules(settings.avro.unknown_fields, settings.avro.bytes))


def _without_topic(contract: Contract) -> dict[str, Any]:
    problem = "its topic is not known: no row of the outbox table has this type; name it with --topic"
    return {"check": "topic", "type": contract.name, "problem": problem}


def _line(problem: dict[str, Any]) -> str:
    names = [str(problem[name]) for name in ("id", "type", "subject") if problem.get(name)]
    return f"{' '.join([problem['check'], *names])}: {problem['problem']}"


def _verdict(problems: int) -> str:
    return plural(problems, "problem") if problems else "all is well"


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0], box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    # Into a pipe or a file there is no width to keep to.
    Console(width=None if sys.stdout.isatty() else 250).print(table, soft_wrap=not sys.stdout.isatty())

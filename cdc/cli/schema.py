"""`schema`: list, check, register, show and infer contracts."""

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
from cdc.cli.contract_set import ContractSet
from cdc.cli.examples import examples
from cdc.cli.infer import infer
from cdc.cli.main import Invocation
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.quantities import plural

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_topics = click.option(
    "--topic", "topics", multiple=True, metavar="NAME", help="Use this topic for subjects; repeatable."
)


@click.group()
def schema() -> None:
    """List, check, register, show or infer contracts.

    The subject strategies topic-record-name and topic-name need the topics of a contract. If [topics] name has no
    placeholder, it is the topic of all contracts. Otherwise each --topic applies to every contract; without --topic,
    topics are derived from the current rows of the outbox table, if [postgres] dsn is set.
    """


schema.add_command(infer)


@schema.command(
    "list", epilog=examples("cdc-publisher schema list", "cdc-publisher schema list --topic outbox.event.order --json")
)
@_topics
@_json
@click.pass_obj
def list_(invocation: Invocation, topics: tuple[str, ...], as_json: bool) -> None:
    """List contracts with their subjects, and with their schema ids if there is a registry."""
    settings = invocation.settings()
    contract_set = ContractSet(settings, topics)
    rows = []
    for contract in contract_set.contracts:
        # A contract without a topic has no subject, but is listed too.
        for name in contract_set.subjects(contract) or [""]:
            found = contract_set.lookup(contract, name) if name else None
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
@click.option(
    "--table", is_flag=True, help="Also encode every row in the outbox table, and warn of bytes that look like base64."
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also check compatibility with the contracts in this folder; needs no registry.",
)
@click.option(
    "--mode",
    type=click.Choice(compatibility.MODES, case_sensitive=False),
    default="BACKWARD",
    show_default=True,
    help="Compatibility that --against requires.",
)
@_topics
@_json
@click.pass_obj
def check(
    invocation: Invocation, table: bool, against: Path | None, mode: str, topics: tuple[str, ...], as_json: bool
) -> int:
    """Check that contracts are valid, match [avro] types, and are compatible with the registry, if any.

    The folder of --against may contain several versions of a type, in files or subfolders. Their paths, sorted with
    numbers by value, order them from oldest to newest. BACKWARD: the new contract reads data of the old one; FORWARD:
    the old contract reads data of the new one; FULL: both. The check uses the newest old version, or all of them with
    _TRANSITIVE.

    Exit codes: 0 no problems; 1 problems.
    """
    settings = invocation.settings()
    found: list[dict[str, Any]] = []
    doubts: list[dict[str, Any]] = []
    checked: dict[str, int] = {}
    try:
        contract_set = ContractSet(settings, topics)
        checked["contracts"] = len(contract_set.contracts)
        if against:
            found += _against(contract_set, against, mode)
    except ConfigError as error:
        found += [{"check": "files", "problem": problem} for problem in error.problems]
    else:
        if settings.schema_registry.url:
            found += contract_set.registry_problems(checked)
        if table:
            found += contract_set.row_problems(checked)
            doubts = contract_set.doubts()
    holds = not found
    if as_json:
        warnings = {"warnings": doubts} if doubts else {}
        click.echo(json.dumps({"holds": holds, "checked": checked, "problems": found, **warnings}, indent=2))
    else:
        for doubt in doubts:
            click.echo(f"warning: {_line(doubt)}", err=True)
        for problem in found:
            click.echo(_line(problem), err=True)
        click.echo(f"{', '.join(f'{number} {what}' for what, number in checked.items())}: {_verdict(len(found))}")
    return 0 if holds else 1


@schema.command(
    epilog=examples(
        "cdc-publisher schema register --dry-run", "cdc-publisher schema register OrderPlaced OrderCancelled"
    )
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be done without doing it, including what the registry would refuse.",
)
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@_topics
@_json
@click.pass_obj
def register(
    invocation: Invocation, dry_run: bool, types: tuple[str, ...], topics: tuple[str, ...], as_json: bool
) -> int:
    """Register the contracts of each TYPE, or all contracts, with the types of other files that they use.

    Registered contracts are not changed. If the registry would refuse any contract, none is registered. A contract
    without a known topic is skipped.

    Exit codes: 0 all registered; 1 a contract was refused or skipped.
    """
    settings = invocation.settings()
    contract_set = ContractSet(settings, topics, types)
    if contract_set.registry is None:
        raise ConfigError(
            "[schema_registry] url is required: set it in the settings file or as CDC_SCHEMA_REGISTRY__URL"
        )
    rows: list[dict[str, Any]] = []
    without_topic = [
        _without_topic(contract) for contract in contract_set.contracts if not contract_set.subjects(contract)
    ]
    refusals = list(contract_set.registry_problems({}))
    problems = [*without_topic, *refusals]
    for contract in contract_set.contracts:
        for name in contract_set.subjects(contract):
            known = contract_set.lookup(contract, name)
            row: dict[str, Any] = {"type": contract.name, "subject": name, "id": known and known.id, "done": "there"}
            if known is None:
                row["done"] = "refused" if refusals else "would be registered"
            if known is None and not dry_run and not refusals:
                row |= {"id": contract_set.register(contract, name).id, "done": "registered"}
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
    epilog=examples("cdc-publisher schema show OrderPlaced", "cdc-publisher schema show OrderPlaced --json-schema")
)
@click.argument("event_type", metavar="TYPE")
@click.option("--compiled", is_flag=True, help="Show the Python source that encodes it, as Avro or as JSON.")
@click.option(
    "--json-schema", is_flag=True, help='Show the JSON Schema of its records with [record] value = "json", and no more.'
)
@_json
@click.pass_obj
def show(invocation: Invocation, event_type: str, compiled: bool, json_schema: bool, as_json: bool) -> None:
    """Show the contract of an event type. With --json, types of other files are inlined."""
    settings = invocation.settings()
    if json_schema and (compiled or as_json):
        raise click.UsageError("--json-schema excludes --compiled and --json")
    contract_set = ContractSet(settings, (), (event_type,))
    (contract,) = contract_set.contracts
    if json_schema:
        click.echo(json.dumps(contract.json_schema(settings.record.form), indent=2))
        return
    source = _compiled(contract, settings, event_type) if compiled else None
    if not as_json:
        click.echo((source if source is not None else contract.text).rstrip("\n"))
        return
    facts = {
        "type": contract.name,
        "fingerprint": contract.fingerprint,
        "file": contract.source,
        "references": contract.references,
        "schema": json.loads(contract_set.definitions[contract.name].whole),
    }
    click.echo(json.dumps(facts | ({"compiled": source} if compiled else {}), indent=2))


def _against(contract_set: ContractSet, folder: Path, mode: str) -> Iterator[dict[str, Any]]:
    earlier = files.versions(folder)
    for contract in contract_set.contracts:
        olds = [(str(version.path), version.schema) for version in earlier.get(contract.name, ())]
        for problem in compatibility.check(mode.upper(), contract.schema, olds):
            yield {"check": "against", "type": contract.name, "problem": problem}


def _compiled(contract: Contract, settings: Settings, event_type: str) -> str:
    from cdc.avro.compiled import compiler

    form = settings.record.form if settings.record.of(event_type) == "json" else None
    return compiler.source(contract.schema, settings.avro.rules, form)


def _without_topic(contract: Contract) -> dict[str, Any]:
    problem = "its topic is not known, because the outbox table has no row of this type; use --topic"
    return {"check": "topic", "type": contract.name, "problem": problem}


def _line(problem: dict[str, Any]) -> str:
    names = [str(problem[name]) for name in ("id", "type", "subject") if problem.get(name)]
    return f"{' '.join([problem['check'], *names])}: {problem['problem']}"


def _verdict(problems: int) -> str:
    return plural(problems, "problem") if problems else "no problems"


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0], box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    # A pipe or file has no width.
    Console(width=None if sys.stdout.isatty() else 250).print(table, soft_wrap=not sys.stdout.isatty())

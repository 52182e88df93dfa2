"""`outbox init --split`: create the outbox in parts, or show the steps that split a table that is in use."""

import shlex
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click

from cdc.cli.main import Invocation
from cdc.config import unit_files
from cdc.config.settings import Settings
from cdc.config.toml_text import value_text
from cdc.errors import ConfigError
from cdc.postgres import defects, outbox_table, split
from cdc.postgres.catalog import table_columns
from cdc.postgres.connection import connect
from cdc.postgres.split import Steps

_FOLDER = "FOLDER"


def init(
    invocation: Invocation,
    settings: Settings,
    number: int,
    *,
    folder: Path | None,
    writers: tuple[str, ...],
    print_only: bool,
) -> bool:
    """Create what is missing, and write the units' files. Return False where steps are left for the user."""
    units, name = split.parts(settings, number), defects.shown(settings.outbox.qualified_name)
    with connect(settings.postgres.dsn) as connection:
        there = table_columns(connection, settings.outbox.qualified_name) is not None
        statements = split.missing(connection, settings, number, writers)
        left = split.steps if statements is None else split.rest
        steps = left(connection, settings, number) if there else None
        if statements and not print_only:
            connection.execute("reset search_path")  # event triggers may depend on it
            outbox_table.execute(connection, statements)
        without_slot = split.without_slot(connection, units)
    if folder is not None:
        if steps is not None:
            _check_folder(folder, steps)
        _write(invocation, units, folder)
    if steps is not None:
        click.echo(text(invocation, steps, name, folder))
        return print_only
    if print_only:
        click.echo("\n\n".join(statements or ()))
        return True
    if statements:
        click.echo(f"created table {name} in {number} parts, or what was missing of it: {', '.join(units)}")
        click.echo(split.NO_CONFLICT)
    else:
        click.echo(f"table {name}, its {number} parts and their publications exist already")
    if without_slot and there:
        click.echo("these parts have no slot; with --backfill, the rows that are there are published first:")
    elif without_slot:
        click.echo("create the slot of each part, with its settings file, before the first row is written:")
    for unit in without_slot:
        click.echo(f"  {_create_slot(invocation, unit, folder, backfill=there)}")
    return True


def _write(invocation: Invocation, units: Mapping[str, Settings], folder: Path) -> None:
    for file, new in unit_files.write(invocation.source, units, folder).items():
        click.echo(f"wrote {file}" if new else f"{file} exists already", err=True)


def _check_folder(folder: Path, steps: Steps) -> None:
    """Raise ConfigError for a folder with a publisher of the old table: a fleet would start the new ones beside it."""
    for file in sorted(folder.glob("*.toml")):
        try:
            slot = tomllib.loads(file.read_text()).get("postgres", {}).get("slot")
        except (OSError, ValueError, AttributeError):
            continue
        if slot in steps.slots:
            raise ConfigError(
                f"{file} is of a publisher that reads the table now, and new ones must not start before it is done",
                hint="name another folder, and move the new files when step 5 says so",
            )


def _create_slot(
    invocation: Invocation, unit: str, folder: Path | None, *, failover: bool = False, backfill: bool = False
) -> str:
    file = (folder or Path(_FOLDER)) / f"{unit}.toml"
    # The files of a fleet's units lack what they have in common.
    program = invocation.program(file) if invocation.unit else f"cdc-publisher --config {shlex.quote(str(file))}"
    return f"{program} slot create{' --failover' if failover else ''}{' --backfill' if backfill else ''}"


def _block(statements: list[str]) -> str:
    return "\n".join(["BEGIN;", *statements, "COMMIT;"])


def text(invocation: Invocation, steps: Steps, name: str, folder: Path | None) -> str:
    """Return the steps that are left as text: SQL from BEGIN to COMMIT, commands behind a dollar sign."""
    before, missing = _before_the_swap(invocation, steps, folder), list[str]()
    if not steps.swap and steps.without_slot:
        missing = ["Before that, create the slots that are missing, and publish the rows that wait for them:"]
        missing.append(_creates(invocation, steps, folder, backfill=True))
    notes = [f"- {note}" for note in [split.NO_CONFLICT, *steps.notes]]
    notes.append(f"- a row that is inserted into {defects.shown(steps.old)} is an error")
    parts = [
        f"Table {name} exists. These steps split it into {len(steps.units)} parts while it is in use; docs/split.md"
        " explains them.\nBegin each when the one before is done. Any step may be interrupted, and done again from its"
        " beginning:\nthis command prints what is left."
        if steps.swap
        else f"Table {name} has {len(steps.units)} parts since the swap of step 2. These steps are left:",
        *before,
        *(_wait(steps) if steps.slots else []),
        f"5. Start the publishers of the new parts: {', '.join(steps.units)}.",
        *missing,
        "6. Drop the old slots and publications. The old table may stay for as long as you need its rows.",
        "\n".join(f"$ {invocation.program()} slot drop {slot} --yes" for slot in steps.slots),
        "\n".join(
            [
                *(f"DROP PUBLICATION IF EXISTS {defects.name(each)};" for each in steps.publications),
                f"DROP TABLE {defects.name(*steps.old)}; -- later",
            ]
        ),
        "\n".join(["These differ from before:", *notes]),
    ]
    return "\n\n".join(parts)


def _before_the_swap(invocation: Invocation, steps: Steps, folder: Path | None) -> list[str]:
    if not steps.swap:
        return []
    files = "" if folder else f"\n   Write the settings files: run this command with --write {_FOLDER}."
    new_name = defects.name(steps.old[1]) if "." in steps.old[1] else steps.old[1]
    return [
        "1. Create the new table beside it, with its publications. When that is committed, create the slots. Start no"
        f"\n   publisher of the new parts yet.{files}",
        _block(steps.create) if steps.create else "The new table is there, with its publications.",
        _creates(invocation, steps, folder) if steps.without_slot else "Its slots are there.",
        *(["Continue once the standby has them: synced in its pg_replication_slots."] if steps.failover else []),
        "Then add to the settings of the publisher that reads the table now, and restart it:\n\n"
        f"[outbox]\nrenamed_to = {value_text(new_name)}"
        if steps.single
        else "The publishers of the old parts keep their settings: the parts keep their names.",
        "2. Swap the tables. If a lock is not free in time, run it again: nothing has changed then.",
        _block(steps.swap),
    ]


def _wait(steps: Steps) -> list[str]:
    listed = ", ".join(map(defects.text, steps.slots))
    return [
        "3. Ask for the end of the WAL, and write it down as W.",
        "SELECT pg_current_wal_insert_lsn() AS w;",
        "4. Wait until no slot is left here. Then stop the old publishers, for good. In a fleet, `fleet status --lsn W`"
        " shows\n   how far they are.",
        f"SELECT slot_name FROM pg_replication_slots WHERE slot_name IN ({listed}) AND confirmed_flush_lsn < 'W';",
    ]


def _creates(invocation: Invocation, steps: Steps, folder: Path | None, *, backfill: bool = False) -> str:
    create = partial(_create_slot, invocation, folder=folder, failover=steps.failover, backfill=backfill)
    return "\n".join(f"$ {create(unit)}" for unit in steps.without_slot)

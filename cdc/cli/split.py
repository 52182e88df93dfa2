"""`outbox init --split`: create the outbox in parts, or show the steps that split a table that is in use."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import click

from cdc.cli.main import Invocation
from cdc.config import unit_files
from cdc.config.settings import Settings
from cdc.config.toml_text import value_text
from cdc.errors import ConfigError
from cdc.postgres import defects, outbox_table, split
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
        statements = split.missing(connection, settings, number, writers)
        steps = split.steps(connection, settings, number) if statements is None else None
        if steps is None and statements and not print_only:
            connection.execute("reset search_path")  # event triggers may depend on it
            outbox_table.execute(connection, statements)
    if steps is not None:
        if folder is not None:
            _check_folder(folder, steps)
            _write(invocation, units, folder)
        click.echo(text(steps, name, folder))
        return print_only
    if print_only:
        click.echo("\n\n".join(statements or ()))
    elif statements:
        click.echo(f"created table {name} in {number} parts, or what was missing of it: {', '.join(units)}")
        click.echo(split.NO_CONFLICT)
    else:
        click.echo(f"table {name}, its {number} parts and their publications exist already")
    if folder is not None:
        _write(invocation, units, folder)
    if not print_only:
        click.echo("create the slot of each part, with its settings file, before the first row is written:")
        for unit in units:
            click.echo(f"  {_create_slot(unit, folder, failover=False)}")
    return True


def _write(invocation: Invocation, units: Mapping[str, Settings], folder: Path) -> None:
    for file, new in unit_files.write(invocation.config, units, folder).items():
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


def _create_slot(unit: str, folder: Path | None, *, failover: bool) -> str:
    return f"cdc-publisher --config {folder or _FOLDER}/{unit}.toml slot create{' --failover' if failover else ''}"


def _block(statements: list[str]) -> str:
    return "\n".join(["BEGIN;", *statements, "COMMIT;"])


def text(steps: Steps, name: str, folder: Path | None) -> str:
    """Return the steps as text: SQL from BEGIN to COMMIT, commands behind a dollar sign."""
    listed = ", ".join(map(defects.text, steps.slots))
    files = "" if folder else f" Write the settings files: run this command with --write {_FOLDER}."
    old = defects.shown(steps.old)
    new_name = defects.name(steps.old[1]) if "." in steps.old[1] else steps.old[1]
    renamed = (
        f"Then add to the settings of the publisher that reads the table now, and restart it:\n\n"
        f"[outbox]\nrenamed_to = {value_text(new_name)}"
        if steps.single
        else "The publishers of the old parts keep their settings: the parts keep their names."
    )
    creates = "\n".join(f"$ {_create_slot(unit, folder, failover=steps.failover)}" for unit in steps.units)
    drops = "\n".join(f"$ cdc-publisher slot drop {slot} --yes" for slot in steps.slots)
    publications = "\n".join(f"DROP PUBLICATION {defects.name(each)};" for each in steps.publications)
    notes = "\n".join(f"- {note}" for note in [split.NO_CONFLICT, *steps.notes])
    return f"""\
Table {name} exists. These steps split it into {len(steps.units)} parts while it is in use; docs/split.md explains them.
Begin each when the one before is done. Any step may be interrupted, and done again from its beginning.

1. Create the new table beside it, with its publications. When that is committed, create the slots.{files} Start no
   publisher of the new parts yet.

{_block(steps.create)}

{creates}

{renamed}

2. Swap the tables. If a lock is not free in time, run it again: nothing has changed then.

{_block(steps.swap)}

3. Ask for the end of the WAL, and write it down as W.

SELECT pg_current_wal_insert_lsn() AS w;

4. Wait until no slot is left here. Then stop the old publishers, for good.

SELECT slot_name FROM pg_replication_slots WHERE slot_name IN ({listed}) AND confirmed_flush_lsn < 'W';

5. Start the publishers of the new parts: {", ".join(steps.units)}.

6. Drop the old slots and publications. The old table may stay for as long as you need its rows.

{drops}

{publications}
DROP TABLE {defects.name(*steps.old)}; -- later

What is not the same as before:
{notes}
- a row that is inserted into {old} is an error"""

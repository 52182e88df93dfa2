"""Runs `check` for every unit of a folder, and what concerns all of them together."""

from collections.abc import Callable, Iterator, Mapping

from cdc.checks import fleet
from cdc.checks.finding import Finding, Notes
from cdc.checks.preflight import CheckOptions, check
from cdc.errors import CdcError
from cdc.fleet.folder import server_of
from cdc.fleet.units import Unit

FLEET = ""
"""Stands for the fleet where units are named."""


def check_units(
    units: Mapping[str, Unit], options: CheckOptions, doing: Callable[[str], None]
) -> Iterator[tuple[str, list[Finding]]]:
    """Yield the findings of the fleet, and then those of each unit that has settings."""
    notes = Notes("fleet")
    settings = {name: unit.settings for name, unit in units.items() if unit.settings}
    fleet.files(notes, len(settings), [f"{unit.name}: {text}" for unit in units.values() for text in unit.problems])
    doing("servers")
    found, silent = [], []
    by_server: dict[str, list[str]] = {}
    for name, one in settings.items():
        by_server.setdefault(server_of(one), []).append(name)
    for server, names in by_server.items():
        try:
            found.append(fleet.read(server, [settings[name].postgres for name in names]))
        except CdcError as error:
            silent.append(error)
    fleet.servers(notes, found, silent, all_units=len(settings) == len(units))
    yield FLEET, notes.findings
    for name, one in settings.items():
        yield name, check(one, options, lambda what, name=name: doing(f"{name}: {what}"))  # type: ignore[misc]

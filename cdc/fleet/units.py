"""The units of a fleet: one publisher each, named by the files that configure them."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from cdc.config.settings import Settings

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Unit(NamedTuple):
    """A unit with its settings; or without, and with what is wrong with them, one line for each problem.

    `slot` names the replication slot with its server, as far as the settings show.
    """

    name: str
    settings: Settings | None
    slot: str = ""
    problems: tuple[str, ...] = ()


def name_problem(name: str) -> str:
    """Return what is wrong with the name of a unit's file without `.toml`; empty if nothing is."""
    if _NAME.fullmatch(name):
        return ""
    return "the name of a unit's file has 1 to 100 letters, digits, '.', '_' and '-' before .toml"


def arranged(found: Iterable[Unit]) -> dict[str, Unit]:
    """Return the units by name; those that share a slot have no settings, as only an operator knows whose it is."""
    units = {unit.name: unit for unit in sorted(found, key=lambda unit: unit.name)}
    by_slot: dict[str, list[str]] = {}
    for unit in units.values():
        if unit.settings:
            by_slot.setdefault(unit.slot, []).append(unit.name)
    for slot, names in by_slot.items():
        for name in names if len(names) > 1 else ():
            others = ", ".join(other for other in names if other != name)
            problem = f"{slot} is also that of unit {others}; give each unit a slot of its own"
            units[name] = Unit(name, None, slot, (problem,))
    return units


def digests(units: Mapping[str, Unit]) -> dict[str, int]:
    """Return what changes with the settings of each unit that has any."""
    return {name: hash(unit.settings.model_dump_json()) for name, unit in units.items() if unit.settings}

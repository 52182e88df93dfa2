"""Reads the folder of a fleet's units, and the files of their secrets."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from cdc.config import environment
from cdc.config.loading import Given, load_unit
from cdc.config.masking import scrubber, secrets
from cdc.config.settings import Settings, require
from cdc.errors import ConfigError
from cdc.fleet.units import Unit, arranged, name_problem
from cdc.kafka import producer
from cdc.logs import format as lines
from cdc.postgres import connection
from cdc.postgres.conninfo import effective

SUFFIX: Final = ".toml"


class Folder:
    """The folder: each `*.toml` in it is a unit. Raises ConfigError when there is no such folder."""

    def __init__(self, path: Path, fleet: Settings, defaults: Given) -> None:
        self._path = path
        self._secrets = fleet.fleet.secrets
        self._defaults = defaults
        self._known = secrets(fleet.model_dump()) | environment.secrets(os.environ)
        self.files()

    def files(self) -> list[Path]:
        """Return the files of units. Raises ConfigError."""
        try:
            return sorted(path for path in self._path.iterdir() if path.suffix == SUFFIX)
        except OSError as error:
            raise ConfigError(
                f"folder {self._path}: {error.strerror}", hint="name the folder that has one .toml file per unit"
            ) from None

    def mark(self) -> tuple[tuple[str, int, int], ...]:
        """Return what changes when a file does; empty while the folder cannot be read."""
        try:
            states = [(path.name, path.stat()) for path in self.files()]
        except (OSError, ConfigError):
            return ()
        return tuple((name, state.st_mtime_ns, state.st_size) for name, state in states)

    def units(self) -> dict[str, Unit]:
        """Read every unit, and mask their secrets in all text from now on. Raises ConfigError for the folder."""
        found = [self._unit(path) for path in self.files()]
        lines.hide(scrubber(self._known))
        return arranged(found)

    def _unit(self, path: Path) -> Unit:
        name = path.stem
        problem = name_problem(name)
        if problem:
            return Unit(name, None, problems=(f"{path}: {problem}",))
        try:
            settings = require(load_unit(path, self._defaults, self._secrets))
            self._known |= secrets(settings.model_dump())
            connection.validate(settings.postgres.dsn)
            producer.validate(settings)
        except ConfigError as error:
            return Unit(name, None, problems=error.problems)
        return Unit(name, settings, _slot_of(settings))


def _slot_of(settings: Settings) -> str:
    """Return a phrase for the slot and its server; different names of one server are not recognised."""
    return f"slot {settings.postgres.slot!r} at {server_of(settings)}"


def server_of(settings: Settings) -> str:
    """Return host:port of the PostgreSQL of a unit, or what the connection string has in their place."""
    given = conninfo_to_dict(settings.postgres.dsn)
    host = effective(given, "host") or effective(given, "hostaddr") or effective(given, "service") or "127.0.0.1"
    port = str(given.get("port") or os.environ.get("PGPORT") or 5432)
    return f"{'127.0.0.1' if host.lower() in _HERE else host.lower()}:{port}"


_HERE: Final = ("localhost", "::1")


def chosen(units: Mapping[str, Unit], refuse: Callable[[str], None]) -> dict[str, Settings]:
    """Return the settings of the units that have any, and report the others."""
    for unit in units.values():
        for problem in unit.problems:
            refuse(f"unit {unit.name}: {problem}")
    return {name: unit.settings for name, unit in units.items() if unit.settings}

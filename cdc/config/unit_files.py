"""Writes the settings files of publishers that share all but slot, publication and table: the parts of an outbox."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cdc.config import files
from cdc.config.loading import DEFAULT_FILE, PATHS
from cdc.config.settings import Settings
from cdc.config.toml_text import section_text
from cdc.errors import ConfigError

_NOT_OF_UNITS: Final = ("http", "fleet")
"""Of one process: two publishers cannot listen on one port."""


def unit_text(source: Path | None, unit: Settings, folder: Path) -> str:
    """Return the settings file of a unit in `folder`: that of `source`, with the slot, publication and table of `unit`.

    Settings that the environment gives are not in it. Relative paths lead to the same files from `folder`.
    """
    tables = _tables(source, folder)
    own = {"slot": unit.postgres.slot, "publication": unit.postgres.publication}
    tables["postgres"] = {**tables.get("postgres", {}), **own}
    outbox = unit.outbox.model_dump(exclude_unset=True)
    outbox.pop("renamed_to", None)
    tables["outbox"] = {**outbox, "table": unit.outbox.table}
    return "\n\n".join(section_text(section, table) for section, table in tables.items()) + "\n"


def write(source: Path | None, units: Mapping[str, Settings], folder: Path) -> dict[Path, bool]:
    """Write a file for each unit, named by it; return whether each is new.

    Raises ConfigError for a file that is there with other content, before anything is written.
    """
    texts = {folder / f"{name}.toml": unit_text(source, unit, folder) for name, unit in units.items()}
    try:
        new = {file: not file.exists() for file in texts}
        for file, text in texts.items():
            if not new[file] and file.read_text() != text:
                raise ConfigError(f"{file} exists, with other settings", hint="remove it, or name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        source = _file(source)
        mode = source.stat().st_mode & 0o777 if source else 0o666
        for file in (file for file, is_new in new.items() if is_new):
            begun = file.with_suffix(".new")  # a fleet reads whole files only, and so does this command when run again
            begun.unlink(missing_ok=True)
            # As secret as the file that its passwords come from.
            with os.fdopen(os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as opened:
                opened.write(texts[file])
            begun.rename(file)
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    return new


def _file(source: Path | None) -> Path | None:
    return source or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def _tables(source: Path | None, folder: Path) -> dict[str, dict[str, Any]]:
    file = _file(source)
    if file is None:
        return {}
    tables: dict[str, dict[str, Any]] = tomllib.loads(files.decoded(file.read_bytes()))
    for section, name in PATHS:
        path = tables.get(section, {}).get(name)
        if path is not None and not Path(path).is_absolute():
            tables[section][name] = os.path.relpath(file.parent / path, folder)
    return {section: table for section, table in tables.items() if section not in _NOT_OF_UNITS}

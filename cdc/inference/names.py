"""Names of inferred contracts and of their files."""

import json
import re
from pathlib import Path
from typing import Any, Final

from cdc.avro.files import NAMED, PRIMITIVES
from cdc.inference import texts

_RESERVED: Final = {*NAMED, *PRIMITIVES, "array", "map", "union"}
_WIDTH: Final = 118
_LONGEST: Final = 200  # characters of a file's name


def valid(event_type: str) -> str:
    """Return the full name of an event type's contract: the type itself if Avro accepts it."""
    parts = [re.sub(r"[^A-Za-z0-9_]", "_", part) for part in event_type.split(".") if part] or ["_"]
    name = ".".join(part if texts.is_name(part) else f"_{part}" for part in parts)
    return f"{name}_" if name in _RESERVED else name


def free(wanted: str, taken: set[str], namespace: str = "") -> str:
    """Return the name, or one like it, of which the full name is not taken, and take that."""
    number, found = 2, wanted
    while (full := f"{namespace}.{found}" if namespace else found) in taken:
        number, found = number + 1, f"{wanted}_{number}"
    taken.add(full)
    return found


def file(folder: Path, name: str) -> Path:
    """Return the file of a contract: a folder for each part of the namespace."""
    *namespace, short = name.split(".")
    return folder.joinpath(*(part[:_LONGEST] for part in namespace), f"{short[:_LONGEST]}.avsc")


def pretty(schema: Any, indent: str = "") -> str:
    """Format a schema as JSON: what fits into a line is one."""
    line = json.dumps(schema, ensure_ascii=False)
    if len(indent) + len(line) <= _WIDTH or not isinstance(schema, (dict, list)) or not schema:
        return line
    inner = f"{indent}  "
    if isinstance(schema, list):
        parts = [pretty(item, inner) for item in schema]
    else:
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(item, inner)}" for key, item in schema.items()]
    opening, closing = "[]" if isinstance(schema, list) else "{}"
    body = f",\n{inner}".join(parts)
    return f"{opening}\n{inner}{body}\n{indent}{closing}"

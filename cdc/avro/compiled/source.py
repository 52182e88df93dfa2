"""Parts of generated source: lines, names of variables, and texts that are safe within source code."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastavro.types import DictSchema, Schema

from cdc.avro.compiled import binary


class Snippet(NamedTuple):
    """Code for a value of a type without branches: statements, then expressions of type bytes, in order."""

    statements: list[str]
    parts: list[str]


def sized(variable: str, data: str) -> Snippet:
    """Return the code for bytes with a length prefix; `data` is an expression that is assigned to `variable`."""
    return Snippet([f"{variable} = {data}; n_{variable} = len({variable})"], [size(variable), variable])


def size(variable: str) -> str:
    """Return the expression that encodes the length in `n_{variable}`."""
    return f"SMALL[n_{variable}] if n_{variable} < {len(binary.SMALL)} else size(n_{variable})"


def uses(schema: Schema) -> Counter[str]:
    """Count the uses of each record: its definition, and each reference to its name."""
    if isinstance(schema, str):
        return Counter([schema])
    if isinstance(schema, list):
        return sum(map(uses, schema), Counter())
    if schema["type"] in {"record", "error"}:
        return sum((uses(field["type"]) for field in schema["fields"]), Counter([schema["name"]]))
    parts = [schema[part] for part in ("items", "values", "type") if isinstance(schema.get(part), (dict, list, str))]
    return sum(map(uses, parts), Counter())


def variable(whole: str, field: DictSchema) -> str:
    """Return a local variable's name for a field; a name that is not an ASCII identifier becomes its code points."""
    name = f"{whole}_{field['name']}"
    if name.isascii() and name.isidentifier():
        return name
    return f"{whole}0{''.join(f'_{ord(char):x}' for char in field['name'])}"


def out(parts: list[str]) -> list[str]:
    """Return the statement that appends the parts to `out`; nothing without parts."""
    if len(parts) > 1:
        return ["out += (", *(f"    {part}," for part in parts), ")"]
    return [f"out.append({part})" for part in parts]


def indented(lines: Iterable[str], depth: int = 1) -> Iterator[str]:
    """Indent lines by `depth` times four spaces."""
    for line in lines:
        yield "    " * depth + line


def word(name: str) -> str:
    """Return a name with all characters replaced that an identifier must not contain."""
    return re.sub(r"[^A-Za-z0-9_]", "_", str(name))


def comment(name: str) -> str:
    """Return a name that is safe within a comment: line breaks and special characters are replaced."""
    return re.sub(r"[^A-Za-z0-9_. -]", "_", str(name))

"""What the emitter's statements are made of: lines, names of variables, and texts that do no harm as source code."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastavro.types import DictSchema, Schema

from cdc.avro.compiled import binary


class Line(NamedTuple):
    """A value without branches: statements first, then its parts, each an expression of bytes."""

    statements: list[str]
    parts: list[str]


def sized(variable: str, data: str) -> Line:
    """Bytes with their length before them."""
    return Line([f"{variable} = {data}; n_{variable} = len({variable})"], [size(variable), variable])


def size(variable: str) -> str:
    """The length of a variable, which is in another."""
    return f"SMALL[n_{variable}] if n_{variable} < {len(binary.SMALL)} else size(n_{variable})"


def uses(schema: Schema) -> Counter[str]:
    """How often each record is used; what refers to a name uses it once more."""
    if isinstance(schema, str):
        return Counter([schema])
    if isinstance(schema, list):
        return sum(map(uses, schema), Counter())
    if schema["type"] in {"record", "error"}:
        return sum((uses(field["type"]) for field in schema["fields"]), Counter([schema["name"]]))
    parts = [schema[part] for part in ("items", "values", "type") if isinstance(schema.get(part), (dict, list, str))]
    return sum(map(uses, parts), Counter())


def variable(whole: str, field: DictSchema) -> str:
    """A local variable for a field; Avro's names are identifiers, and what is none gets its numbers."""
    name = f"{whole}_{field['name']}"
    if name.isascii() and name.isidentifier():
        return name
    return f"{whole}0{''.join(f'_{ord(char):x}' for char in field['name'])}"


def out(parts: list[str]) -> list[str]:
    """The statement that appends parts, if there are any."""
    if len(parts) > 1:
        return ["out += (", *(f"    {part}," for part in parts), ")"]
    return [f"out.append({part})" for part in parts]


def indented(lines: Iterable[str], depth: int = 1) -> Iterator[str]:
    """The same lines, further to the right."""
    for line in lines:
        yield "    " * depth + line


def word(name: str) -> str:
    """A name as part of an identifier."""
    return re.sub(r"[^A-Za-z0-9_]", "_", str(name))


def comment(name: str) -> str:
    """A name as part of a comment: on one line, whatever it holds."""
    return re.sub(r"[^A-Za-z0-9_. -]", "_", str(name))

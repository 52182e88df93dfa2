"""Find the branches of a union that may accept a JSON value, by the Python type that a parser returns for it."""

from typing import Final

from fastavro.types import DictSchema, Schema

from cdc.avro.mapping import logical, unions
from cdc.avro.mapping.convert import resolved, type_name
from cdc.avro.mapping.rules import Rules

_INT_BEFORE_LONG: Final = ("int", "long")


def taking(branches: list[Schema], python_type: type, schemas: dict[str, DictSchema]) -> list[int]:
    """Return the indexes of the branches that may accept values of a Python type."""
    return [index for index, branch in enumerate(branches) if python_type in takes(branch, schemas)]


def takes(branch: Schema, schemas: dict[str, DictSchema]) -> frozenset[type]:
    """Return the Python types of the JSON values that a schema other than a union may accept."""
    definition = resolved(branch, schemas)
    applies = logical.mapper(definition) is not None
    return unions.takes(definition["type"], definition["logicalType"] if applies else None)


def truncates(schema: Schema, rules: Rules) -> bool:
    """Return whether compiled code may drop excess digits of times, without the mapping's order of attempts.

    In a union the mapping tries a tagged form, as it is, before it converts. An object can be both only if a record's
    field has the name of a branch, or the branch is a map.
    """
    if rules.timestamps != "truncate":
        return False
    names: set[str] = set()
    tags: set[str] = set()
    _collect(schema, names, tags)
    return tags.isdisjoint({*names, "map"})


def _collect(schema: Schema, names: set[str], tags: set[str]) -> None:
    """Add the names and aliases of all fields, and the branches of all unions."""
    if isinstance(schema, list):
        tags.update(map(type_name, schema))
        for branch in schema:
            _collect(branch, names, tags)
    elif isinstance(schema, dict):
        for field in schema.get("fields", ()):
            names.update({field["name"], *field.get("aliases", ())})
            _collect(field["type"], names, tags)
        for part in ("type", "items", "values"):
            if isinstance(schema.get(part), (dict, list)):
                _collect(schema[part], names, tags)


def plain_integers(branches: list[Schema], found: list[int], schemas: dict[str, DictSchema]) -> list[tuple[str, int]]:
    """Return name and index of the plain int and long branches among `found`, int first.

    Returns nothing if a branch is an int of a logical type, that is, a date or a time of day.
    """
    kinds = [resolved(branches[index], schemas) for index in found]
    if any(kind["type"] == "int" and logical.mapper(kind) for kind in kinds):
        return []
    return [(name, index) for name in _INT_BEFORE_LONG for index in found if branches[index] in (name, {"type": name})]

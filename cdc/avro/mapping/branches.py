"""Which branches of a union may take a JSON value, by the Python type it is parsed to."""

from typing import Final

from fastavro.types import DictSchema, Schema

from cdc.avro.mapping import logical, unions
from cdc.avro.mapping.convert import resolved

_INT_BEFORE_LONG: Final = ("int", "long")


def taking(branches: list[Schema], python_type: type, schemas: dict[str, DictSchema]) -> list[int]:
    """The branches, by their number, that may take a value of a type."""
    return [index for index, branch in enumerate(branches) if python_type in takes(branch, schemas)]


def takes(branch: Schema, schemas: dict[str, DictSchema]) -> frozenset[type]:
    """The JSON values, by their Python types, that a schema other than a union may take."""
    definition = resolved(branch, schemas)
    applies = logical.mapper(definition) is not None
    return unions.takes(definition["type"], definition["logicalType"] if applies else None)


def plain_integers(branches: list[Schema], found: list[int], schemas: dict[str, DictSchema]) -> list[tuple[str, int]]:
    """Of several branches that may take a whole number, int and then long, each with its number.

    Nothing where one of them is an int with a question of its own: a date or a time of day.
    """
    kinds = [resolved(branches[index], schemas) for index in found]
    if any(kind["type"] == "int" and logical.mapper(kind) for kind in kinds):
        return []
    return [(name, index) for name in _INT_BEFORE_LONG for index in found if branches[index] in (name, {"type": name})]

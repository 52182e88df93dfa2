"""Infers contracts from JSON texts, as the job does from rows."""

from collections.abc import Iterable
from typing import Any

from cdc.avro.compiled.payloads import parse_exactly
from cdc.avro.contracts import Contract
from cdc.avro.decode import Reading
from cdc.inference.same import same
from cdc.inference.schema import Remark, Wishes, record
from cdc.inference.summary import Objects
from tests.unit.contract import contract


def observed(payloads: Iterable[str]) -> Objects:
    objects = Objects(is_root=True)
    for payload in payloads:
        value = parse_exactly(payload.encode())
        assert isinstance(value, dict)
        objects.observe(value)
    return objects


def inferred(*payloads: str, name: str = "T", enums: bool = False, doubles: bool = False) -> tuple[Any, list[Remark]]:
    """The contract's schema, and its remarks."""
    return record(observed(payloads), name, "Inferred.", Wishes(enums, doubles), {name})


def fields(*payloads: str, enums: bool = False, doubles: bool = False) -> dict[str, Any]:
    """The types of the contract's fields, without null."""
    schema, _ = inferred(*payloads, enums=enums, doubles=doubles)
    assert all(field["default"] is None and field["type"][0] == "null" for field in schema["fields"])
    types = {field["name"]: field["type"][1:] for field in schema["fields"]}
    return {name: branches[0] if len(branches) == 1 else branches for name, branches in types.items()}


def holds(schema: Any, payloads: Iterable[str]) -> Contract:
    """Assert that each payload is encoded and decoded to the same JSON value."""
    made = contract(schema)
    reading = Reading(made.schema)
    for payload in payloads:
        decoded = reading.value(made.encode(payload.encode(), b""))
        assert same(parse_exactly(payload.encode()), decoded), (payload, decoded, schema)
    return made

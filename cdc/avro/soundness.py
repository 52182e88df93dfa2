"""Check rules of Avro that fastavro's parser does not enforce: valid names, and fields present exactly once.

<https://avro.apache.org/docs/1.12.0/specification/#names>
"""

import re
from collections import Counter
from collections.abc import Iterator

from fastavro.types import DictSchema, Schema

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check(written: Schema, parsed: Schema) -> None:
    """Check a schema, given as JSON and as parsed by fastavro. Raises ValueError for the first violation."""
    for before, record in zip(_records(written), _records(parsed), strict=True):
        if "fields" not in before:
            raise ValueError(f"not an Avro schema: record {record['name']} has no fields")
        _check(record)


def _records(schema: Schema | None) -> Iterator[DictSchema]:
    """Yield every record that a schema defines."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _records(branch)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "error"):
            yield schema
        for part in (schema["type"], schema.get("items"), schema.get("values")):
            yield from _records(part)
        for part in schema.get("fields", ()):
            yield from _records(part["type"])


def _check(record: DictSchema) -> None:
    name, fields = record["name"], record["fields"]
    if not all(_NAME.fullmatch(part) for part in name.split(".")):
        raise ValueError(f"not an Avro schema: {name!r} is not a valid name")
    for label, times in Counter(part["name"] for part in fields).items():
        if times > 1:
            raise ValueError(f"not an Avro schema: record {name} has field {label!r} {times} times")
        if not _NAME.fullmatch(label):
            raise ValueError(f"not an Avro schema: {label!r} is not a valid field name")

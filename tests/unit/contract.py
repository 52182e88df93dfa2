"""Contracts for tests: a field of any type, encoded and read back by fastavro."""

import io
from typing import Any

import fastavro

from cdc.avro.contracts import Contract
from cdc.avro.framing import HEADER_SIZE


def contract(schema: Any) -> Contract:
    return Contract(fastavro.parse_schema(schema, named_schemas={}), "test.avsc")


def of(kind: Any, **more: Any) -> Contract:
    """A record with one field `v`."""
    return contract({"type": "record", "name": "R", "fields": [{"name": "v", "type": kind, **more}]})


def read_back(target: Contract, payload: str | bytes) -> Any:
    """What a consumer sees."""
    value = target.encode(payload.encode() if isinstance(payload, str) else payload)
    assert value[:HEADER_SIZE] == target.header
    body = io.BytesIO(value[HEADER_SIZE:])
    datum: Any = fastavro.schemaless_reader(body, target.schema, None)
    assert body.read() == b"", "bytes behind the body"
    return datum


def seen(kind: Any, json_text: str, **more: Any) -> Any:
    """The field as a consumer sees it, from the JSON text of its value."""
    return read_back(of(kind, **more), f'{{"v": {json_text}}}')["v"]

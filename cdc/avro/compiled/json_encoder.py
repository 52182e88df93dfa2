"""Encoders of one contract's payloads to JSON: the same values as in Avro, each with exactly one text."""

import functools

from fastavro.types import DictSchema

from cdc.avro.compiled import compiler
from cdc.avro.compiled.payloads import text_encoder
from cdc.avro.compiled.plan import plan
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping.rules import Rules


class JsonEncoder:
    """Encodes by the schema of the contract `name`.

    Raises Mismatch if JSON cannot have the value of a default.
    """

    def __init__(self, schema: DictSchema, rules: Rules, form: JsonForm) -> None:
        self.name: str = schema["name"]
        self.encode_value = compiler.compile_encoder(schema, rules, form)
        """Encode a parsed JSON value: `(value, header)` to header and JSON. Raises Mismatch."""
        self.encode = text_encoder(schema, rules, self.encode_value, b"", form)
        """Encode JSON text: `(payload, header)` to header and JSON. Raises Mismatch or another ValueError."""
        self._given = schema, rules, form

    @functools.cached_property
    def plan(self) -> bytes | None:
        """The instructions that the native accelerator compiles; None if it would decline every payload."""
        return plan(*self._given)

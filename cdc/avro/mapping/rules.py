"""The two configurable rules of reading JSON: unknown fields, and the form of bytes."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Rules:
    """`[avro] unknown_fields` and `[avro] bytes`. By default unknown fields are rejected, and bytes are Avro's JSON."""

    unknown_fields: Literal["reject", "ignore"] = "reject"
    bytes_as: Literal["avro-json", "base64"] = "avro-json"


STRICT: Final = Rules()

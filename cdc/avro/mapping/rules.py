"""The configurable rules of reading JSON: unknown fields, the form of bytes, and times that are too precise."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Rules:
    """`[avro] unknown_fields`, `bytes` and `timestamps`.

    By default unknown fields are rejected, bytes are in Avro's JSON encoding, and times that are more precise than
    their contract are rejected.
    """

    unknown_fields: Literal["reject", "ignore"] = "reject"
    bytes_as: Literal["avro-json", "base64"] = "avro-json"
    timestamps: Literal["exact", "truncate"] = "exact"


STRICT: Final = Rules()

"""The two choices there are in how JSON is read: what a contract does not know, and how bytes are written."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Rules:
    """`[avro] unknown_fields` and `[avro] bytes`; the defaults are the strict reading and Avro's own JSON encoding."""

    unknown_fields: Literal["reject", "ignore"] = "reject"
    bytes_as: Literal["avro-json", "base64"] = "avro-json"


STRICT: Final = Rules()

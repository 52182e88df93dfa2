"""The outbox table of a simulated world: columns that are added, dropped, retyped and renamed, and cells of each type.

A value follows the type that its column has when it is written, as an application would write it.
"""

import struct
import uuid
from typing import Final

from cdc.replication import values
from cdc.replication.messages import Relation, Type
from tests.unit import frames
from tests.unit.frames import Cell
from tests.unit.shop import COLUMNS, OID

ENUM: Final = 90_001
"""A type that this database has made: nothing reads it in binary format."""
DOMAINS: Final = {
    90_101: (values.UUID, "uuid"),
    90_102: (values.VARCHAR, "varchar"),
    90_103: (values.BYTEA, "bytea"),
    90_104: (values.BOOL, "bool"),
    90_105: (values.INT8, "int8"),
}
"""Domains, their base types, and how PostgreSQL names these before it describes a table."""
_UUIDS, _VARCHARS, _BYTEAS, _BOOLS, _BIGINTS = DOMAINS
CHILD_OID: Final = OID + 1
NAMES: Final = ("id", "aggregatetype", "aggregateid", "type", "payload", "tenant")
RETYPES: Final[dict[str, tuple[int, ...]]] = {
    "id": (values.UUID, values.INT8, values.TEXT, values.VARCHAR, _UUIDS),
    "aggregatetype": (values.TEXT, values.VARCHAR, values.BPCHAR, values.INT8),
    "aggregateid": (values.TEXT, values.INT8, values.VARCHAR, values.INT4, values.UUID, _VARCHARS, _BIGINTS),
    "type": (values.TEXT, values.VARCHAR, ENUM),
    "payload": (values.JSONB, values.TEXT, values.BYTEA, values.JSON, _BYTEAS),
    "tenant": (values.TEXT, values.INT4, values.BOOL, values.UUID, _BOOLS),
}
"""Types that each column may have; the first is the one it begins with."""
_NUMBERS: Final = {values.INT2: ">h", values.INT4: ">i", values.INT8: ">q"}
_FIRST_ID: Final = 7_000_000_000


class Table:
    """The columns as they are now, and what an application writes into them."""

    def __init__(self, *, tenant: bool) -> None:
        self.name = "outbox"
        self.columns: list[tuple[str, int]] = list(COLUMNS)
        if tenant:
            self.columns.append(("tenant", RETYPES["tenant"][0]))
        self._more = 0
        self._numeric_keys = False  # for good: what was a number stays one as text
        self._relation = self._described()

    @property
    def relation(self) -> Relation:
        """What PostgreSQL says of the table."""
        return self._relation

    @property
    def child(self) -> Relation:
        """What PostgreSQL says of the table that inherits from it."""
        return self._relation._replace(oid=CHILD_OID, name=f"{self.name}_child")

    def type_of(self, name: str) -> int | None:
        """The base type of a column."""
        found = dict(self.columns).get(name)
        return None if found is None else base(found)

    def binary(self, headers: tuple[str, ...]) -> bool:
        """Whether every column that an event needs has a binary decoder today."""
        needed = [type_oid for name, type_oid in self.columns if name in NAMES[:5] or name in headers]
        return all(values.has_binary_decoder(base(type_oid)) for type_oid in needed)

    # Operators

    def rename_table(self, name: str) -> None:
        self.name = name
        self._describe()

    def add(self, name: str = "") -> None:
        """Add a column, at the end."""
        if not name:
            self._more += 1
            name = f"more{self._more}"
        if self.type_of(name) is None:
            self.columns.append((name, RETYPES[name][0] if name in RETYPES else values.TEXT))
            self._describe()

    def drop(self, name: str) -> None:
        self.columns = [column for column in self.columns if column[0] != name]
        self._describe()

    def retype(self, name: str, type_oid: int) -> None:
        self.columns = [(found, type_oid if found == name else before) for found, before in self.columns]
        self._describe()

    def swap(self, one: str, other: str) -> None:
        """Two columns are renamed to each other: the next rows look the same and mean something else."""
        names, types = {one: other, other: one}, dict(self.columns)
        if types.get(one) in RETYPES[other] and types.get(other) in RETYPES[one]:
            self.columns = [(names.get(name, name), type_oid) for name, type_oid in self.columns]
            self._describe()

    def _describe(self) -> None:
        self._relation = self._described()

    def _described(self) -> Relation:
        return frames.relation(OID, self.name, self.columns)

    # Applications

    def id(self, number: int) -> str:
        """The id of an event, as its column takes it."""
        type_oid = self.type_of("id")
        if type_oid == values.UUID:
            return f"00000000-0000-4000-8000-{number:012x}"
        return str(_FIRST_ID + number) if type_oid == values.INT8 else f"event-{number:02d}"

    def key(self, key: str) -> str:
        """The key of an event; text of eight digits where the column was a number before."""
        type_oid = self.type_of("aggregateid")
        number = 42_424_200 + ord(key[-1]) % 100
        self._numeric_keys |= type_oid in _NUMBERS
        if type_oid == values.UUID:
            return f"11111111-1111-4111-8111-{number:012d}"
        return str(number) if self._numeric_keys else key

    def aggregate(self, name: str) -> str:
        """The aggregate type of an event; as a number, the one that has the bytes of its name."""
        number = int.from_bytes(f"{name:8.8}".encode(), "big")
        return str(number) if self.type_of("aggregatetype") == values.INT8 else name

    def tenant(self, number: int) -> str | None:
        """The column that may be a header; None where the table has none."""
        type_oid = self.type_of("tenant")
        if type_oid is None:
            return None
        if type_oid == values.BOOL:
            return "true" if number % 2 else "false"
        if type_oid == values.UUID:
            return f"22222222-2222-4222-8222-{number:012x}"
        return str(1_633_906_021 - number) if type_oid in _NUMBERS else "acme"


def base(type_oid: int) -> int:
    """The type that decides how values are written."""
    return DOMAINS[type_oid][0] if type_oid in DOMAINS else type_oid


def described(type_oid: int) -> Type | None:
    """What PostgreSQL says of a type that is not its own; of a domain it names the base type, in pg_catalog."""
    if type_oid == ENUM:
        return Type(ENUM, "public", "event_type")
    return Type(type_oid, "", DOMAINS[type_oid][1]) if type_oid in DOMAINS else None


def cell(type_oid: int, text: str | None, *, binary: bool) -> Cell:
    """A cell as the server sends it."""
    type_oid = base(type_oid)
    if text is None:
        return None
    if not binary:
        if type_oid == values.BYTEA:
            return "\\x" + text.encode().hex()
        return text[0] if type_oid == values.BOOL else text
    if type_oid in _NUMBERS:
        return struct.pack(_NUMBERS[type_oid], int(text))
    if type_oid == values.UUID:
        return uuid.UUID(text).bytes
    if type_oid == values.BOOL:
        return bytes([text == "true"])
    return b"\x01" * (type_oid == values.JSONB) + text.encode()

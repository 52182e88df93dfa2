"""Runs, in Python and native: the records are those of the general road, and hostile frames only end a run."""

import contextlib
import importlib
import json
from typing import Any

import fastavro
from hypothesis import given
from hypothesis import strategies as st

from cdc.avro.contracts import Contract
from cdc.avro.json_values import JsonForm
from cdc.config.settings import Record as RecordSettings
from cdc.lsn import LSN
from cdc.outbox.events import Event, Outbox
from cdc.outbox.keys import Keys
from cdc.records.encoding import Encoding
from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import Layout, Make, layout, room
from cdc.records.record import Record, batch_size
from cdc.records.router import AVRO, Encoder, Values
from cdc.replication.frames import XLOG_HEADER_SIZE
from cdc.replication.messages import Insert, Relation, TupleData
from cdc.replication.pgoutput import decode
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row
from cdc.replication.values import BPCHAR, TIMESTAMPTZ, TIMETZ
from cdc.replication.values import TIMESTAMP as TIMESTAMP_OID
from tests.examples import examples
from tests.unit import frames, shop
from tests.unit.shop import BOOL, BYTEA, INT4, INT8, JSONB, OID, STREAM, TEXT, UUID

MAKES: dict[str, Make] = {"python": Unrolled}
with contextlib.suppress(ModuleNotFoundError):  # without a Rust toolchain there is one way only
    MAKES["native"] = importlib.import_module("cdc_native").Runs

COMMIT_LSN, TIMESTAMP = LSN(0xAB_0000CDEF), 1_785_542_400_123
PREFIX = f"{STREAM}-{COMMIT_LSN:016X}-"
TRANSACTION = Ledger().begin(COMMIT_LSN, TIMESTAMP)
FRAMES = b"\xc3\x01framing."


def contract(name: str, *fields: Any) -> Contract:
    schema = {"type": "record", "name": name, "fields": list(fields)}
    return Contract(fastavro.parse_schema(schema, named_schemas={}), "test.avsc")


MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
LINE = {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}, {"name": "qty", "type": "int"}]}
AT = {"type": "long", "logicalType": "timestamp-millis"}
CONTRACTS = {
    "Placed": contract(
        "Placed",
        {"name": "order", "type": "long"},
        {"name": "lines", "type": {"type": "array", "items": LINE}},
        {"name": "note", "type": ["null", "string"], "default": None},
    ),
    "Paid": contract("Paid", {"name": "at", "type": AT}, {"name": "sum", "type": MONEY}),
    "Either": contract("Either", {"name": "v", "type": ["string", "bytes", "long"]}),
}
FITTING: dict[bytes, list[Any]] = {
    b"Placed": [
        {"order": 1, "lines": [], "note": "x"},
        {"order": 1 << 40, "lines": [{"qty": 1, "sku": "é"}, {"sku": "A-1", "qty": 20000}]},
    ],
    b"Paid": [{"at": "2026-01-31T10:00:00Z", "sum": "1.50"}, {"sum": 12.25, "at": 5}],
    b"Either": [{"v": 1}, {"v": {"bytes": "x"}}],
}
UNFIT: list[Any] = [{"order": 1, "lines": [{"qty": 1 << 31, "sku": ""}]}, {"sum": 12.255, "at": 5}, {"v": "text"}, []]
ODD = [*(json.dumps(value).encode() for value in UNFIT), b"", b" \x0b", b"{", b"\xff"]


FORM = JsonForm()
JSON = {name: one.json_encoder(FORM) for name, one in CONTRACTS.items()}


class Encoders:
    """The contracts of this file, for kinds of values."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def get(self, event_type: str, /) -> Encoder | None:
        return JSON.get(event_type) if self._values.of(event_type) == "json" else CONTRACTS.get(event_type)

    def asks_again(self, event_type: str) -> bool:  # noqa: ARG002 - a registry's would look
        return False

    def missing(self, event_type: str) -> str:
        return event_type


class Framing:
    """One header for all."""

    def header(self, topic: str, contract: str) -> bytes | None:  # noqa: ARG002
        return FRAMES

    def close(self) -> None:
        pass


class Table:
    """One outbox table in one format, read on the general road and in runs."""

    def __init__(
        self,
        relation: Relation,
        outbox: Outbox,
        make: Make,
        *,
        binary: bool,
        frame_bytea: bool = False,
        values: Values = AVRO,
    ) -> None:
        self.relation = relation
        self.outbox = outbox
        self.encoding = Encoding(outbox, Encoders(values), Framing(), frame_bytea=frame_bytea, values=values)
        found = layout(relation, outbox, binary=binary)
        self.layout: Layout | None = found
        self.runs = make(found) if found else None

    def general(self, frame: bytes, index: int) -> tuple[Row, Event, Record]:
        """The record of a frame by the general road. Raises what it raises."""
        message = decode(frame, XLOG_HEADER_SIZE)
        assert isinstance(message, Insert)
        assert message.relation_oid == self.relation.oid
        row = Row(TRANSACTION, index, self.relation, message.new)
        event = self.outbox.event(row)
        return row, event, self.encoding.record(event)

    def learn(self, frame: bytes, largest: int) -> None:
        """Teach the runs the route of a frame, if the general road takes it."""
        try:
            row, event, _ = self.general(frame, 0)
        except Exception:
            return
        if self.layout is None or self.runs is None or event.payload is None:
            return
        route = self.encoding.shared(event)
        assert route
        self.runs.learn(*self._cells(row), route, room(self.layout, route, largest))

    def _cells(self, row: Row) -> tuple[bytes, tuple[bytes, ...]]:
        assert self.layout is not None
        cells = row.data.cells
        return cells[self.layout.type], tuple([cells[place] for place in self.layout.topic])

    def check(self, run: list[bytes], at: int, index: int, largest: int) -> int:
        """Compare the records of `run[at:]`, of which one for each is right; returns how many there were."""
        if self.runs is None:
            return 0
        taken = self.runs.take(run, at, PREFIX, index, TIMESTAMP, TRANSACTION.report)
        assert at + len(taken) <= max(len(run), at)
        for number, record in enumerate(taken):
            assert record == self.general(run[at + number], index + number)[2]
            assert batch_size(Record(*record)) <= largest
        return len(taken)


COLUMNS = [
    "id",
    "aggregatetype",
    "aggregateid",
    "type",
    "payload",
    "region",
    "traceparent",
    "rest",
    "blob",
    "at",
    "moment",
]
MOMENTS = {
    TIMESTAMP_OID: [b"2026-01-31 08:00:00", b"0044-03-15 12:00:00.5 BC", b"infinity", b"12026-01-31 08:00:00.123456"],
    TIMESTAMPTZ: [
        b"2026-01-31 08:00:00.123456+00",
        b"0044-03-15 12:00:00+00 BC",
        b"-infinity",
        b"2026-01-31 08:00:00+05:30",
    ],
    TIMETZ: [b"08:00:00+00", b"08:00:00.5-02", b"08:00:00+05:30"],
}


TIMES = {
    (TIMESTAMP_OID, False): [b"2026-01-31 08:00:00", b"1970-01-01 00:00:00.001", b"9999-12-31 23:59:59.999999"],
    (TIMESTAMPTZ, False): [b"2026-01-31 08:00:00.123456+00", b"2026-01-31 08:00:00.5+00"],
    (INT8, False): [b"1", b"1769846400123", b"253402300799999"],
    (TIMESTAMP_OID, True): [(823_161_600_123_999).to_bytes(8, "big"), bytes(8), b"\xff" * 8],
    (TIMESTAMPTZ, True): [(823_161_600_123_999).to_bytes(8, "big")],
    (INT8, True): [(1).to_bytes(8, "big"), (1_769_846_400_123).to_bytes(8, "big")],
}
"""Cells that may be the time of a record, by type and format."""
NO_TIMES = [b"infinity", b"0", b"-1", b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7), bytes(8), b"2026-01-31 08:00:00+05:30"]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, bool]:
    """A table with columns in any order, and whether it comes in binary."""
    types = {name: draw(st.sampled_from([TEXT, TEXT, UUID, INT4, INT8, BOOL, BPCHAR])) for name in COLUMNS}
    types["type"] = types["aggregatetype"] = TEXT
    types["traceparent"] = draw(st.sampled_from([TEXT, JSONB]))
    types["rest"] = draw(st.sampled_from([TEXT, UUID]))
    types["blob"] = BYTEA
    types["payload"] = draw(st.sampled_from([JSONB, JSONB, TEXT, BYTEA]))
    names = draw(st.permutations(COLUMNS)) if draw(st.booleans()) else COLUMNS
    binary, iso = draw(st.booleans()), draw(st.booleans())
    types["at"] = draw(st.sampled_from([TEXT, INT8, UUID] if binary else [TEXT, *MOMENTS, *MOMENTS]))
    types["moment"] = draw(st.sampled_from([TIMESTAMP_OID, TIMESTAMPTZ, INT8]))
    times = ["at"] if (types["at"], binary) in TIMES else []
    time = draw(st.sampled_from([None, "moment", "moment", "absent", *times]))
    template = draw(st.sampled_from(["outbox.event.{aggregatetype}", "events", "of.{aggregatetype}.{region}"]))
    headers = draw(
        st.sampled_from(
            [[], ["region"], ["absent", "aggregateid:customer", "rest"], ["at", "traceparent"], ["at:occurredAt", "at"]]
        )
    )
    headers += ["blob"] if iso and draw(st.booleans()) else []
    keys = Keys(draw(st.sampled_from(["text", "json", "json-schema"])), draw(st.booleans()))
    outbox = shop.outbox(template, headers, tombstones=draw(st.booleans()), iso=iso, keys=keys, time=time)
    relation = frames.relation(OID, "outbox", [(name, types[name]) for name in names])
    make = MAKES[draw(st.sampled_from(sorted(MAKES)))]
    kinds: Any = {name: draw(st.sampled_from(["avro", "avro", "json", "text"])) for name in CONTRACTS}
    values = RecordSettings(values=kinds, check=draw(st.booleans()), content_type=draw(st.booleans()))
    return Table(relation, outbox, make, binary=binary, frame_bytea=draw(st.booleans()), values=values), binary


SIZES = {INT4: 4, INT8: 8, UUID: 16, BOOL: 1}
STRANGE = [b"", b"\xff", b"\x02{}", b"\x01\xff", b"\\x6", b"\1", b"a b", b"\xc3", bytes(16), b"Unknown", *ODD]


def cell(draw: st.DrawFn, name: str, type_oid: int, binary: bool, event_type: bytes, *, is_time: bool) -> bytes:
    """The bytes of a cell that nothing is wrong with."""
    if name == "type":
        return event_type
    version = b"\x01" if binary and type_oid == JSONB else b""
    if name == "payload" and type_oid != BYTEA:
        value = draw(st.sampled_from(FITTING[event_type]))
        return version + json.dumps(value, sort_keys=draw(st.booleans())).encode()
    if (name == "moment" or is_time) and (type_oid, binary) in TIMES:
        return draw(st.sampled_from(TIMES[type_oid, binary]))
    if type_oid in MOMENTS:
        return draw(st.sampled_from(MOMENTS[type_oid]))
    if type_oid == BYTEA:
        return draw(st.sampled_from([b"\\x6d69", b"\x00\xff"])) if binary else b"\\x6d69"
    if binary and type_oid in SIZES:
        return draw(st.binary(min_size=SIZES[type_oid], max_size=SIZES[type_oid]))
    long = [] if name in ("aggregatetype", "region") else [b"o" * 127, b"o" * 128]  # those two make the topic's name
    padding = b"  " if type_oid == BPCHAR else b""
    odd = [] if name in ("aggregatetype", "region") else [b'"\\\x1f\n' * 40, "é\u2028😀".encode()]
    return version + draw(st.sampled_from([*odd, b"order", b"o-1", b"t", b"f", b"1", *long])) + padding


@st.composite
def inserts(draw: st.DrawFn, table: Table, binary: bool, *, right: bool) -> bytes:
    """The frame of a row; unless it is `right`, one of its cells may be strange, null or in another format."""
    usual, event_type = ord("b") if binary else ord("t"), draw(st.sampled_from(sorted(FITTING)))
    columns = table.relation.columns
    formats = bytearray([usual]) * len(columns)
    time = table.outbox.time
    cells = [
        cell(draw, column.name, column.type_oid, binary, event_type, is_time=column.name == time) for column in columns
    ]
    if not right and draw(st.integers(0, 2)) == 0:
        place = draw(st.integers(0, len(columns) - 1))
        formats[place] = draw(st.sampled_from([usual, *b"nutb"]))
        cells[place] = b"" if formats[place] in b"nu" else draw(st.sampled_from([*STRANGE, *NO_TIMES]))
    for name in draw(st.sampled_from([[], ["traceparent"], ["at", "moment"], ["traceparent", "at", "blob"]])):
        place = [column.name for column in columns].index(name)
        formats[place], cells[place] = ord("n"), b""
    return frames.xlog(Insert(OID, TupleData(bytes(formats), cells)), draw(st.integers(0, 1 << 60)))


@st.composite
def hurt(draw: st.DrawFn, frame: bytes) -> bytes:
    """The frame with some bytes cut off, put in or replaced."""
    at = draw(st.integers(0, len(frame)))
    to = draw(st.integers(at, min(len(frame), at + 4)))
    return draw(st.sampled_from([frame[:at], frame[:at] + frame[to:], frame[:at] + b"nn\0" + frame[to:]]))


@given(tables(), st.data(), st.sampled_from([1_000_000, 1_000_000, 1_500]))
@examples(500)
def test_records_are_those_of_the_general_road(drawn: tuple[Table, bool], data: st.DataObject, largest: int) -> None:
    table, binary = drawn
    run = data.draw(st.lists(inserts(table, binary, right=False), min_size=1, max_size=6))
    for frame in run:
        table.learn(frame, largest)
    index = data.draw(st.sampled_from([0, 7, 0xFFFFFFFF]))
    for at in range(len(run) + 2):
        table.check(run, at, index, largest)
    number = data.draw(st.integers(0, len(run) - 1))
    run[number] = data.draw(hurt(run[number]) | frames.messages().map(frames.xlog))
    for at in range(len(run)):
        table.check(run, at, index, largest)


@given(tables(), st.data())
@examples(500)
def test_rows_that_nothing_is_wrong_with_are_taken(drawn: tuple[Table, bool], data: st.DataObject) -> None:
    table, binary = drawn
    run = data.draw(st.lists(inserts(table, binary, right=True), min_size=1, max_size=3))
    for frame in run:
        table.general(frame, 0)
        table.learn(frame, 1_000_000)
    assert table.check(run, 0, 0, 1_000_000) == (len(run) if table.layout else 0)

"""Rows to events: columns, formats, positions and poison."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import BinaryUnreadable, PoisonEvent, PostgresUnavailable, ProtocolError
from cdc.lsn import LSN
from cdc.outbox.columns import Columns
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.records.encoding import Encoding
from cdc.replication.messages import Relation, TupleData
from cdc.replication.transactions import Row
from tests import payloads
from tests.unit import frames, shop
from tests.unit.frames import Cell
from tests.unit.shop import BOOL, BYTEA, COLUMNS, EVENT_ID, INT4, INT8, JSONB, TEXT, UUID, outbox

BINARY_ID = bytes.fromhex(EVENT_ID.replace("-", ""))
TEXT_CELLS = (EVENT_ID, "order", "o-1", "OrderPlaced", '{"n": 1}')
BINARY_CELLS = (BINARY_ID, b"order", b"o-1", b"OrderPlaced", b'\x01{"n": 1}')


def with_columns(*more: tuple[str, int]) -> Relation:
    return frames.relation(shop.OID, "outbox", [*COLUMNS, *more])


def test_a_row_becomes_an_event() -> None:
    row = shop.row(*TEXT_CELLS)
    event = outbox().event(row)
    assert event.row is row
    assert event[1:] == (EVENT_ID, "outbox.event.order", b"o-1", "OrderPlaced", "order", b'{"n": 1}', "json", [], None)


def test_the_golden_rows_in_text_and_in_binary_are_the_same_event() -> None:
    read = outbox()
    relation = payloads.OUTBOX_RELATION.message
    assert isinstance(relation, Relation)
    events = []
    for golden in (payloads.INSERT_TEXT, payloads.INSERT_BINARY):
        data = golden.message[1]
        assert isinstance(data, TupleData)
        events.append(read.event(Row(shop.row().transaction, 0, relation, data)))
    assert events[0][1:] == events[1][1:]


# For each type: the same value as text and in binary.
FORMATS: list[tuple[str, int, str, bytes]] = [
    ("text", TEXT, "é x", "é x".encode()),
    ("varchar", 1043, "abc", b"abc"),
    ("char(4)", 1042, "ab  ", b"ab  "),
    ("uuid", UUID, EVENT_ID, BINARY_ID),
    ("int2", 21, "-2", b"\xff\xfe"),
    ("int4", INT4, "70000", (70000).to_bytes(4, "big")),
    ("int8", INT8, "-9223372036854775808", b"\x80" + bytes(7)),
    ("json", 114, '{"a":1}', b'{"a":1}'),
    ("jsonb", JSONB, '{"a": 1}', b'\x01{"a": 1}'),
    ("bool true", BOOL, "t", b"\x01"),
    ("bool false", BOOL, "f", b"\x00"),
]


@pytest.mark.parametrize(("type_oid", "text", "binary"), [case[1:] for case in FORMATS], ids=[c[0] for c in FORMATS])
def test_a_header_column_in_text_and_in_binary_gives_the_same_header(type_oid: int, text: str, binary: bytes) -> None:
    relation = with_columns(("extra", type_oid))
    read = outbox(headers=["extra"])
    as_text = read.event(shop.row(*TEXT_CELLS, text, relation=relation))
    as_binary = read.event(shop.row(*BINARY_CELLS, binary, relation=relation))
    assert as_text.headers == as_binary.headers


@pytest.mark.parametrize(("type_oid", "text", "binary"), [case[1:] for case in FORMATS], ids=[c[0] for c in FORMATS])
def test_a_key_column_in_text_and_in_binary_gives_the_same_key(type_oid: int, text: str, binary: bytes) -> None:
    relation = with_columns(("k", type_oid))
    read = outbox(columns=Columns(key="k"))
    as_text = read.event(shop.row(*TEXT_CELLS, text, relation=relation))
    as_binary = read.event(shop.row(*BINARY_CELLS, binary, relation=relation))
    assert as_text.key == as_binary.key


def test_bytea_is_avro_already_in_both_formats() -> None:
    relation = frames.relation(shop.OID, "outbox", [*COLUMNS[:4], ("payload", BYTEA)])
    read = outbox()
    as_text = read.event(shop.row(*TEXT_CELLS[:4], r"\xc30100ff", relation=relation))
    as_binary = read.event(shop.row(*BINARY_CELLS[:4], b"\xc3\x01\x00\xff", relation=relation))
    assert as_text.payload == as_binary.payload == b"\xc3\x01\x00\xff"
    assert as_text.payload_is_avro
    assert as_binary.payload_is_avro


@pytest.mark.parametrize("cell", ["\\001", "\\xf", "\\xzz", ""])
def test_bytea_in_another_text_format_is_a_protocol_error(cell: str) -> None:
    relation = frames.relation(shop.OID, "outbox", [*COLUMNS[:4], ("payload", BYTEA)])
    with pytest.raises(ProtocolError, match="bytea"):
        outbox().event(shop.row(*TEXT_CELLS[:4], cell, relation=relation))


@pytest.mark.parametrize(
    "cells", [(b"short", *BINARY_CELLS[1:]), (*BINARY_CELLS[:4], b"\x02{}"), (*BINARY_CELLS[:4], b"")]
)
def test_a_binary_cell_that_is_not_of_its_type_is_a_protocol_error(cells: tuple[Cell, ...]) -> None:
    with pytest.raises(ProtocolError):
        outbox().event(shop.row(*cells))


@pytest.mark.parametrize(("commit_lsn", "index", "position"), [
    (0x16_B374D848, 3, "0badcafe-00000016B374D848-00000003"),
    (0xFFFFFFFF, 0xFFFFFFFF, "0badcafe-00000000FFFFFFFF-FFFFFFFF"),
    (0x1_00000000, 0, "0badcafe-0000000100000000-00000000"),
])  # fmt: skip
def test_a_position_is_stream_commit_and_index_a5_a24(commit_lsn: int, index: int, position: str) -> None:
    assert outbox().position(shop.row(commit_lsn=commit_lsn, index=index)) == position


places = st.tuples(st.integers(1, 0xFFFFFFFF_FFFFFFFF) | st.integers(0xFFFFFF00, 0x1_000000FF), st.integers(0, 1 << 31))


@given(places, places)
def test_positions_sort_as_text_as_they_do_as_numbers_a24(left: tuple[int, int], right: tuple[int, int]) -> None:
    read = outbox()
    texts = [read.position(shop.row(commit_lsn=lsn, index=index)) for lsn, index in (left, right)]
    assert (texts[0] < texts[1]) == (left < right)


@pytest.mark.parametrize("null", [1, 3])
def test_a_null_column_is_poison_with_its_position_and_id_c8(null: int) -> None:
    cells: list[Cell] = list(TEXT_CELLS)
    cells[null] = None
    with pytest.raises(PoisonEvent) as caught:
        outbox().event(shop.row(*cells, commit_lsn=0x200, index=4))
    name = COLUMNS[null][0]
    assert caught.value.reason == f"column {name!r} is null"
    assert caught.value.position == "0badcafe-0000000000000200-00000004"
    assert caught.value.event_id == EVENT_ID
    assert str(caught.value).startswith(f"poison event {EVENT_ID} at position 0badcafe-0000000000000200-00000004: ")


def test_a_null_id_is_poison_without_an_id() -> None:
    with pytest.raises(PoisonEvent) as caught:
        outbox().event(shop.row(None, *TEXT_CELLS[1:]))
    assert (caught.value.reason, caught.value.event_id) == ("column 'id' is null", "")


def test_an_unchanged_toast_value_is_poison_and_never_a_placeholder_b10() -> None:
    row = shop.row(*TEXT_CELLS)
    row.data = TupleData(b"ttttu", [*row.data.cells[:4], b""])
    with pytest.raises(PoisonEvent, match="column 'payload' is an unchanged TOAST value"):
        outbox().event(row)


def test_rows_after_a_poison_event_of_the_same_shape_are_read_on() -> None:
    read = outbox()
    with pytest.raises(PoisonEvent):
        read.event(shop.row(EVENT_ID, "order", "o-1", None, "{}"))
    assert read.event(shop.row(*TEXT_CELLS)).key == b"o-1"


@pytest.mark.parametrize("aggregate", ["a b", "é", "", "x" * 250, "a/b"])
def test_a_row_without_a_valid_topic_is_poison(aggregate: str) -> None:
    with pytest.raises(PoisonEvent, match="is not a valid topic name") as caught:
        outbox("{aggregatetype}").event(shop.row(EVENT_ID, aggregate, *TEXT_CELLS[2:]))
    assert caught.value.event_id == EVENT_ID


def test_text_that_is_not_utf_8_is_poison() -> None:
    with pytest.raises(PoisonEvent, match="utf-8"):
        outbox().event(shop.row(BINARY_ID, b"order", b"o-1", b"\xff\xfe", b"\x01{}"))


def test_topics_are_cached_by_value_and_not_by_row() -> None:
    read = outbox("{aggregatetype}.{type}")
    topics = [
        read.event(shop.row(EVENT_ID, aggregate, "k", kind, "{}")).topic
        for aggregate, kind in [("a", "b"), ("ab", "c"), ("a", "bc"), ("a", "b")]
    ]
    assert topics == ["a.b", "ab.c", "a.bc", "a.b"]


def test_more_topics_than_the_cache_holds_stay_right() -> None:
    read = outbox("{aggregateid}")
    for number in range(10_050):
        assert read.event(shop.row(EVENT_ID, "order", f"k{number}", "T", "{}")).topic == f"k{number}"


def test_a_row_with_more_cells_than_columns_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="received a row of 6 columns for a table of 5"):
        outbox().event(shop.row(*TEXT_CELLS, "more"))


def test_case_a2_a_binary_cell_of_an_unknown_type_asks_for_a_new_session() -> None:
    relation = with_columns(("extra", 1114))
    with pytest.raises(BinaryUnreadable, match=r"'extra' has binary values of an unknown type \(oid 1114\)"):
        outbox(headers=["extra"]).event(shop.row(*BINARY_CELLS, bytes(8), relation=relation))


def test_case_a5_a_row_without_a_needed_column_is_poison_that_names_the_columns() -> None:
    relation = frames.relation(shop.OID, "outbox", [("id", UUID), ("aggregatetype", TEXT)])
    with pytest.raises(PoisonEvent, match=r"table public\.outbox did not publish column 'aggregateid'") as caught:
        outbox().event(shop.row(EVENT_ID, "order", relation=relation))
    assert "(it published id, aggregatetype)" in str(caught.value)
    assert caught.value.event_id == EVENT_ID


def test_case_a5_a_row_of_a_table_that_changed_since_it_was_checked_ends_the_session() -> None:
    relation = frames.relation(shop.OID, "outbox", [("id", UUID), ("aggregatetype", TEXT)])
    read = Outbox(shop.STREAM, Columns(), TopicTemplate("events"), suited_at=LSN(300))
    with pytest.raises(PoisonEvent):
        read.event(shop.row(EVENT_ID, "order", relation=relation, commit_lsn=299))
    with pytest.raises(PostgresUnavailable, match="does not publish column 'aggregateid' any more"):
        read.event(shop.row(EVENT_ID, "order", relation=relation, commit_lsn=300))


def test_case_a5_a_header_that_the_relation_of_a_row_lacks_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    read = outbox(headers=["tenant"])
    later = with_columns(("tenant", TEXT))
    assert read.event(shop.row(*TEXT_CELLS)).headers == []
    assert read.event(shop.row(*TEXT_CELLS, "acme", relation=later)).headers == [("tenant", "acme")]
    assert read.event(shop.row(*TEXT_CELLS, relation=frames.relation(1, "outbox", COLUMNS))).headers == []
    assert [record.event for record in caplog.records] == ["header_left_out"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("role", ["id", "aggregateid", "type", "extra"])
def test_case_a4_bytea_in_a_column_of_text_is_poison_in_both_formats(role: str, *, binary: bool) -> None:
    names = [*(name for name, _ in COLUMNS), "extra"]
    relation = frames.relation(shop.OID, "outbox", [(name, BYTEA if name == role else TEXT) for name in names])
    cells: list[Cell] = [b"x"] * 6 if binary else [r"\x78"] * 6
    with pytest.raises(PoisonEvent, match=f"column '{role}' is bytea, not text"):
        outbox("events", headers=["extra"]).event(shop.row(*cells, relation=relation))


def test_case_g3_a_null_key_is_an_event_without_a_key() -> None:
    assert outbox().event(shop.row(*TEXT_CELLS[:2], None, *TEXT_CELLS[3:])).key is None


@pytest.mark.parametrize(
    ("payload", "kind"), [(114, "json"), (JSONB, "json"), (TEXT, "text"), (1043, "text"), (1042, "text")]
)
def test_the_kind_of_a_payload_is_that_of_its_column(payload: int, kind: str) -> None:
    relation = frames.relation(shop.OID, "outbox", [*COLUMNS[:4], ("payload", payload)])
    assert outbox().event(shop.row(*TEXT_CELLS, relation=relation)).payload_kind == kind


def test_case_g3_a_null_payload_names_the_setting_that_allows_it() -> None:
    read = outbox()
    with pytest.raises(PoisonEvent, match=r"column 'payload' is null; set \[outbox\] tombstones = true"):
        Encoding(read, shop.Encoders(), shop.Framing()).record(read.event(shop.row(*TEXT_CELLS[:4], None)))


@pytest.mark.parametrize("role", ["id", "aggregatetype", "aggregateid", "type", "extra"])
def test_case_c7_text_that_is_not_utf_8_is_poison_with_its_column(role: str) -> None:
    relation = frames.relation(shop.OID, "outbox", [*((name, TEXT) for name, _ in COLUMNS), ("extra", TEXT)])
    cells = [b"caf\xe9" if name == role else b"{}" for name in [*(name for name, _ in COLUMNS), "extra"]]
    with pytest.raises(PoisonEvent, match=f"column '{role}' is not UTF-8"):
        outbox("events", headers=["extra"]).event(shop.row(*cells, relation=relation))


@pytest.mark.parametrize("binary", [False, True])
def test_case_c10_the_padding_of_char_n_is_removed(*, binary: bool) -> None:
    relation = frames.relation(shop.OID, "outbox", [(name, 1042) for name, _ in COLUMNS])
    texts = [f"{text} \u3000 " for text in TEXT_CELLS]  # of Unicode's spaces only the blank is padding
    cells: list[Cell] = [text.encode() for text in texts] if binary else [*texts]
    event = outbox("events").event(shop.row(*cells, relation=relation))
    assert (event.id, event.type, event.aggregate) == tuple(f"{TEXT_CELLS[place]} \u3000" for place in (0, 3, 1))
    assert event.key == f"{TEXT_CELLS[2]} \u3000".encode()


def test_case_a4_a_boolean_of_a_cast_is_read_as_one_of_the_stream() -> None:
    # `audit --repair` reads rows with casts to text.
    read, relation = outbox(headers=["extra"]), with_columns(("extra", BOOL))
    headers = [
        read.event(shop.row(*TEXT_CELLS, cell, relation=relation)).headers for cell in ("t", "true", "f", "false")
    ]
    assert [text for ((_, text),) in headers] == ["true", "true", "false", "false"]


def test_the_format_is_chosen_by_every_column_that_is_read_trace_columns_too() -> None:
    # Otherwise a trace column without a binary decoder would end every session with PostgresUnavailable.
    needed = Columns().needed([*dict(COLUMNS), "traceparent"], TopicTemplate("events"), [])
    assert "traceparent" in needed


def test_a_row_without_the_column_of_times_has_the_time_of_its_commit_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outbox = shop.outbox(time="at")
    for _ in range(2):
        row = shop.row(shop.EVENT_ID, "order", "o-1", "OrderPlaced", "{}")
        assert outbox.event(row).timestamp == shop.COMMIT_TIME_MS
    assert [vars(one)["column"] for one in caplog.records if vars(one).get("event") == "commit_time_used"] == ["at"]


def test_a_time_of_another_type_when_the_row_was_written_is_poison() -> None:
    relation = frames.relation(shop.OID, "outbox", [*shop.COLUMNS, ("at", shop.TEXT)])
    row = shop.row(shop.EVENT_ID, "order", "o-1", "OrderPlaced", "{}", "2026-01-31", relation=relation)
    with pytest.raises(PoisonEvent, match="column 'at' was of a type that is no time of records"):
        shop.outbox(time="at").event(row)

"""Columns of an outbox: mapped, added, dropped and renamed; headers and topics from them."""

import re

import pytest

from cdc.outbox.columns import Columns, Header
from cdc.outbox.topic_template import TopicTemplate
from tests.unit import frames, shop
from tests.unit.shop import COLUMNS, EVENT_ID, INT4, JSONB, OID, TEXT, UUID, outbox

CELLS = (EVENT_ID, "order", "o-1", "OrderPlaced", "{}")
MAPPED = Columns(id="event_id", aggregate="kind", key="entity", type="name", payload="body")
MAPPED_RELATION = frames.relation(
    OID, "outbox", [("body", JSONB), ("name", TEXT), ("entity", TEXT), ("kind", TEXT), ("event_id", UUID)]
)


def test_mapped_columns_are_found_wherever_they_stand() -> None:
    row = shop.row("{}", "OrderPlaced", "o-1", "order", EVENT_ID, relation=MAPPED_RELATION)
    event = outbox(columns=MAPPED, template="events").event(row)
    assert (event.id, event.key, event.type, event.payload) == (EVENT_ID, b"o-1", "OrderPlaced", b"{}")


@pytest.mark.parametrize("template", ["{aggregatetype}-x", "{kind}-x"])
def test_a_topic_may_name_a_mapped_column_by_either_name(template: str) -> None:
    row = shop.row("{}", "OrderPlaced", "o-1", "order", EVENT_ID, relation=MAPPED_RELATION)
    assert outbox(template, columns=MAPPED).event(row).topic == "order-x"


def test_a_placeholder_that_is_a_column_of_the_table_means_that_column() -> None:
    relation = frames.relation(OID, "outbox", [*COLUMNS, ("kind", TEXT)])
    read = outbox("{aggregatetype}.x", columns=Columns(aggregate="kind"))
    assert read.event(shop.row(*CELLS, "other", relation=relation)).topic == "order.x"


def test_a_column_that_is_no_role_may_fill_the_topic() -> None:
    relation = frames.relation(OID, "outbox", [*COLUMNS, ("tenant", INT4)])
    assert outbox("t{tenant}").event(shop.row(*CELLS, "12", relation=relation)).topic == "t12"


def test_every_column_that_must_be_there_is_needed_once() -> None:
    template = TopicTemplate("{kind}.{tenant}")
    needed = Columns(aggregate="kind").needed(
        ["kind", "tenant"], template, [Header("tenant", "tenant"), Header("source", "origin")]
    )
    assert needed == ["id", "kind", "aggregateid", "type", "payload", "tenant", "source"]


TRACED = frames.relation(OID, "outbox", [*COLUMNS, ("tracestate", TEXT), ("source", TEXT), ("traceparent", TEXT)])


def test_configured_headers_come_first_and_trace_headers_after_them() -> None:
    event = outbox(headers=["source"]).event(shop.row(*CELLS, "a=1", "web", "00-ab-cd-01", relation=TRACED))
    assert event.headers == [("source", "web"), ("traceparent", "00-ab-cd-01"), ("tracestate", "a=1")]


def test_a_trace_column_that_is_configured_too_is_one_header() -> None:
    event = outbox(headers=["tracestate"]).event(shop.row(*CELLS, "a=1", "web", "00", relation=TRACED))
    assert event.headers == [("tracestate", "a=1"), ("traceparent", "00")]
    event = outbox(headers=["tracestate:state"]).event(shop.row(*CELLS, "a=1", "web", "00", relation=TRACED))
    assert event.headers == [("state", "a=1"), ("traceparent", "00")]
    event = outbox(headers=["source:traceparent"]).event(shop.row(*CELLS, "a=1", "web", "00", relation=TRACED))
    assert event.headers == [("traceparent", "web"), ("tracestate", "a=1")]


def test_a_column_is_a_header_of_another_name_or_of_several() -> None:
    read = outbox(headers=["source:origin", "source", "type:kind"])
    row = shop.row(*CELLS, None, "web", None, relation=TRACED)
    assert read.event(row).headers == [("origin", "web"), ("source", "web"), ("kind", "OrderPlaced")]


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("tenant", ("tenant", "tenant")),
        ("created_at:occurredAt", ("created_at", "occurredAt")),
        ('"a:b"', ("a:b", "a:b")),
        ('"a:b":c', ("a:b", "c")),
        ('"a""b":a"b', ('a"b', 'a"b')),
        ('we"ird', ('we"ird', 'we"ird')),
    ],
)
def test_a_header_is_a_column_with_the_name_behind_a_colon(text: str, header: tuple[str, str]) -> None:
    assert Header.parse(text) == header


@pytest.mark.parametrize("text", ["", ":a", "a:", "a:b:c", '"a', '"a"b', '"":a', '"a":', '"a":b:c', "é" * 32 + ":a"])
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        Header.parse(text)


def test_a_null_header_is_left_out_and_an_empty_one_is_kept() -> None:
    read = outbox(headers=["source"])
    event = read.event(shop.row(*CELLS, None, None, "00", relation=TRACED))
    assert event.headers == [("traceparent", "00")]
    event = read.event(shop.row(*CELLS, None, "", "00", relation=TRACED))
    assert event.headers == [("source", ""), ("traceparent", "00")]


def test_columns_nobody_asked_for_are_ignored() -> None:
    relation = frames.relation(OID, "outbox", [("at", 1114), *COLUMNS, ("n", 1700)])
    event = outbox().event(shop.row(b"12345678", *CELLS, None, relation=relation))
    assert (event.id, event.headers) == (EVENT_ID, [])


def test_a_column_added_in_mid_stream_is_used_for_the_rows_after_it_b7() -> None:
    read = outbox()
    added = frames.relation(OID, "outbox", [("traceparent", TEXT), *COLUMNS])
    assert read.event(shop.row(*CELLS)).headers == []
    event = read.event(shop.row("00", *CELLS, relation=added))
    assert (event.id, event.headers) == (EVENT_ID, [("traceparent", "00")])
    assert read.event(shop.row(*CELLS)).headers == []


def test_a_column_dropped_in_mid_stream_moves_the_others_b7() -> None:
    read = outbox("{aggregatetype}")
    before = frames.relation(OID, "outbox", [("old", TEXT), *COLUMNS])
    assert read.event(shop.row("x", *CELLS, relation=before)).key == b"o-1"
    event = read.event(shop.row(*CELLS))
    assert (event.id, event.topic, event.key, event.payload) == (EVENT_ID, "order", b"o-1", b"{}")


def test_a_column_retyped_in_mid_stream_is_read_as_its_new_type_b7() -> None:
    retyped = frames.relation(OID, "outbox", [*COLUMNS[:2], ("aggregateid", INT4), *COLUMNS[3:]])
    read = outbox()
    binary = (bytes(16), b"order", b"\x00\x00\x00\x07", b"T", b"\x01{}")
    assert read.event(shop.row(*binary)).key == b"\x00\x00\x00\x07"
    assert read.event(shop.row(*binary, relation=retyped)).key == b"7"


def test_topics_cached_under_one_relation_are_not_used_under_another_b7() -> None:
    read = outbox("{aggregatetype}")
    swapped = frames.relation(OID, "outbox", [COLUMNS[0], ("aggregateid", TEXT), ("aggregatetype", INT4), *COLUMNS[3:]])
    assert read.event(shop.row(EVENT_ID, "a", b"\0\0\0\7", "T", "{}")).topic == "a"
    assert read.event(shop.row(EVENT_ID, "a", b"\0\0\0\7", "T", "{}", relation=swapped)).topic == "7"

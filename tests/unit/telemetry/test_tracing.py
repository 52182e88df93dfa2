"""Spans: each event's trace goes on from its row to its record, and the span lasts from commit to confirmation."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cdc.config.masking import MASK, scrubber
from cdc.delivery.confirmation import Confirmation
from cdc.delivery.session import Session
from cdc.logs import format as lines
from cdc.records.dead_letters import DeadLetters
from cdc.records.encoding import Encoding
from cdc.records.record import Record
from cdc.replication.messages import Insert
from cdc.replication.settlement import Ledger
from cdc.telemetry import spans
from cdc.telemetry.opentelemetry import OpenTelemetry
from tests.unit import frames, shop
from tests.unit.shop import COLUMNS, COMMIT_TIME_MS, EVENT_ID, INT8, JSONB, OID, TEXT, Encoders, Framing, Topics

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
TRACESTATE = "rojo=00f067aa0ba902b7 , congo=t61rcWkgMzE"
COMMITTED = COMMIT_TIME_MS * 1_000_000
CONFIRMED = COMMITTED + 250_000_000
POSITION = "0badcafe-00000000000000C8-00000000"
RELATION = frames.relation(
    OID, "outbox", [*COLUMNS[:4], ("payload", JSONB), ("traceparent", TEXT), ("tracestate", TEXT)]
)
INVALID = [
    "",
    "00",
    "00-ab",
    TRACEPARENT.upper(),
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{'0' * 32}-{PARENT}-01",
    "x" * 100_000,
]


class Road:
    """A session with a tracer of its own."""

    def __init__(self, dead_letters: bool = False, topics: Topics | None = None, now: int = CONFIRMED) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer = OpenTelemetry(SimpleSpanProcessor(self.exporter), "shop", lambda: now)
        self.ledger = Ledger()
        outbox = shop.outbox()
        self.session = Session(
            shop.TABLE,
            outbox,
            spans.encoding(self.tracer)(outbox, Encoders(), Framing()),
            topics or Topics(),
            Confirmation(self.ledger, 10.0),
            spans.refusals(self.tracer, DeadLetters("dead", outbox) if dead_letters else None),
        )

    def records(self, *rows: bytes) -> list[Record]:
        stream = [shop.begin(200), shop.relation(RELATION), *rows, shop.commit(200)]
        return [Record(*record) for record in self.session.receive(stream)]

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


class Delivery:
    """A delivery report's message."""

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return 77


class Refusal:
    """And its error."""

    def name(self) -> str:
        return "TOPIC_AUTHORIZATION_FAILED"

    def str(self) -> str:
        return "Broker: not allowed; password hunter2"


def row(
    traceparent: str | None = None, tracestate: str | None = None, payload: str = "{}", event_type: str = "OrderPlaced"
) -> bytes:
    cells = (EVENT_ID, "order", "o-1", event_type, payload, traceparent, tracestate)
    return frames.xlog(Insert(OID, frames.row(*cells)), 100)


def context(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.headers if name.startswith("trace")}


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_a_trace_goes_on_from_the_row_through_the_span_to_the_record() -> None:
    road = Road()
    (record,) = road.records(row(TRACEPARENT, TRACESTATE))
    assert len(road.spans) == 0  # not delivered yet
    record.on_delivery(None, Delivery())
    (span,) = road.spans
    trace_id, span_id = ids(span)
    assert trace_id == TRACE
    assert span.parent
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.parent.is_remote
    assert context(record) == {"traceparent": f"00-{TRACE}-{span_id}-01", "tracestate": TRACESTATE}
    assert (span.start_time, span.end_time) == (COMMITTED, CONFIRMED)
    assert (span.name, span.kind, span.status.status_code) == (
        "publish outbox.event.order",
        SpanKind.PRODUCER,
        StatusCode.UNSET,
    )
    assert dict(span.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "outbox.event.order",
        "messaging.destination.partition.id": "2",
        "messaging.kafka.offset": 77,
        "messaging.message.id": EVENT_ID,
        "messaging.message.body.size": 2,
        "cdc.event.type": "OrderPlaced",
        "cdc.position": POSITION,
    }
    assert road.ledger.settle() == 208


def test_an_event_without_a_trace_begins_one() -> None:
    road = Road()
    first, second = road.records(row(), row(None, "a=1"))
    for record in (first, second):
        record.on_delivery(None, None)
    for record, span in zip((first, second), road.spans, strict=True):
        assert span.parent is None
        assert context(record) == {"traceparent": "00-{}-{}-01".format(*ids(span))}
        assert "messaging.kafka.offset" not in (span.attributes or {})
    assert len({ids(span) for span in road.spans}) == 2


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_trace_context_stays_as_it_is_and_is_nobodys_parent(text: str) -> None:
    road = Road()
    (record,) = road.records(row(text, "\x00=,,"))
    record.on_delivery(None, None)
    (span,) = road.spans
    assert span.parent is None
    assert context(record) == {"traceparent": text, "tracestate": "\x00=,,"}


@given(st.text(), st.text())
def test_no_text_in_these_columns_stops_an_event(traceparent: str, tracestate: str) -> None:
    road = Road()
    (record,) = road.records(row(traceparent, tracestate))
    record.on_delivery(None, None)
    assert len(road.spans) == 1
    assert context(record)["tracestate"] == tracestate
    assert road.ledger.settle() == 208


@given(st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", fullmatch=True), st.text())
def test_a_trace_context_keeps_its_state_whatever_that_is(traceparent: str, tracestate: str) -> None:
    (record,) = Road().records(row(traceparent, tracestate))
    assert context(record)["traceparent"][:35] == traceparent[:35]
    assert context(record).get("tracestate", "") == tracestate


@pytest.mark.parametrize(
    ("traceparent", "sampler"),
    [
        (f"00-{TRACE}-{PARENT}-00", "parentbased_always_on"),
        (TRACEPARENT, "always_off"),
        (None, "always_off"),
        (None, "parentbased_always_off"),
    ],
)
def test_what_is_not_sampled_passes_as_without_tracing(
    traceparent: str | None, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    road = Road()
    (record,) = road.records(row(traceparent, "a=1"))
    assert context(record) == {**({"traceparent": traceparent} if traceparent else {}), "tracestate": "a=1"}
    transaction = road.ledger.oldest
    assert transaction
    assert record.on_delivery == transaction.report
    record.on_delivery(None, None)
    assert road.spans == ()


def test_a_span_never_ends_before_it_began() -> None:
    road = Road(now=COMMITTED - 5_000_000_000)  # the clock of PostgreSQL is ahead
    (record,) = road.records(row())
    record.on_delivery(None, None)
    (span,) = road.spans
    assert (span.start_time, span.end_time) == (COMMITTED, COMMITTED)


def test_an_event_that_kafka_refuses_has_a_span_of_the_error_without_secrets() -> None:
    lines.hide(scrubber(["hunter2"]))
    try:
        road = Road()
        (record,) = road.records(row(TRACEPARENT))
        record.on_delivery(Refusal(), Delivery())
    finally:
        lines.hide(str)
    (span,) = road.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == f"Broker: not allowed; password {MASK}"
    assert (span.attributes or {})["error.type"] == "TOPIC_AUTHORIZATION_FAILED"
    assert road.ledger.failure


@pytest.mark.parametrize(
    ("bad", "name", "kind"),
    [
        (row(TRACEPARENT, payload="bad"), "publish outbox.event.order", "payload-mismatch"),
        (row(TRACEPARENT, event_type="Unknown"), "publish outbox.event.order", "contract-missing"),
        (row(TRACEPARENT, payload="x" * 2_000_000), "publish outbox.event.order", "too-large"),
    ],
)
def test_poison_that_stops_the_publisher_has_a_span_that_says_why(bad: bytes, name: str, kind: str) -> None:
    road = Road()
    good, *none = road.records(row(), bad, row())
    assert not none
    assert road.session.poison
    assert road.session.poison.kind == kind
    (span,) = road.spans
    assert (span.name, ids(span)[0]) == (name, TRACE)
    assert (span.start_time, span.end_time) == (COMMITTED, CONFIRMED)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == lines.hidden(road.session.poison.reason)
    assert (span.attributes or {})["error.type"] == kind
    assert (span.attributes or {})["cdc.position"] == POSITION[:-1] + "1"
    assert context(good)


def test_the_reason_in_a_span_holds_no_secret() -> None:
    lines.hide(scrubber(["Unknown"]))
    try:
        road = Road()
        road.records(row(event_type="Unknown"))
    finally:
        lines.hide(str)
    assert road.spans[0].status.description == f"no contract for event type '{MASK}' in schemas"


def test_a_row_that_cannot_be_read_has_a_span_without_what_is_not_known() -> None:
    road = Road()
    cells = (EVENT_ID, None, "o-1", "OrderPlaced", "{}", TRACEPARENT, None)
    assert road.records(frames.xlog(Insert(OID, frames.row(*cells)), 100)) == []
    (span,) = road.spans
    assert span.name == "publish"
    assert "messaging.destination.name" not in (span.attributes or {})
    assert (span.attributes or {})["error.type"] == "unreadable-row"


def test_a_dead_letter_has_the_span_of_its_row_and_keeps_what_the_row_had() -> None:
    road, plain = Road(dead_letters=True), shop.session(dead_letters=DeadLetters("dead", shop.outbox()))
    stream = [shop.begin(200), shop.relation(RELATION), row(TRACEPARENT, TRACESTATE, "bad"), shop.commit(200)]
    (letter,) = road.records(row(TRACEPARENT, TRACESTATE, "bad"))
    assert letter._replace(on_delivery=print) == plain.receive(stream)[0]._replace(on_delivery=print)
    assert len(road.spans) == 0
    letter.on_delivery(None, Delivery())
    (span,) = road.spans
    assert (span.name, ids(span)[0], span.status.status_code) == ("publish dead", TRACE, StatusCode.ERROR)
    assert (span.attributes or {})["error.type"] == "payload-mismatch"
    assert road.ledger.settle() == 208


def test_an_event_that_has_to_wait_has_one_span_in_the_end() -> None:
    topics = Topics(**{"outbox.event.order": None})
    road = Road(topics=topics)
    assert road.records(row(TRACEPARENT)) == []
    assert road.session.resume() == []
    topics.known.clear()
    (record,) = [Record(*sendable) for sendable in road.session.resume()]
    record.on_delivery(None, None)
    (span,) = road.spans
    assert context(record)["traceparent"] == f"00-{TRACE}-{ids(span)[1]}-01"


def test_a_traced_record_differs_from_others_in_nothing_but_the_context() -> None:
    road = Road()
    for number in range(3):  # no route is learned either
        (traced,) = [Record(*r) for r in road.session.receive(transaction(200 + number * 10, row(TRACEPARENT)))]
        (plain,) = shop.session().receive(transaction(200 + number * 10, row(TRACEPARENT)))
        headers = [header for header in plain.headers if header[0] != "traceparent"]
        assert traced.headers[:-1] == headers
        assert traced[:4] == plain[:4]


def transaction(commit_lsn: int, *rows: bytes) -> list[bytes]:
    return [shop.begin(commit_lsn), shop.relation(RELATION), *rows, shop.commit(commit_lsn)]


def test_a_tracer_that_fails_costs_the_span_and_not_the_event(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    road = Road()
    before, later = road.records(row(), row())

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect of a library")

    monkeypatch.setattr(road.exporter, "export", broken)  # the processor's own matter
    before.on_delivery(None, None)
    monkeypatch.setattr(road.tracer, "export", broken)
    later.on_delivery(None, None)
    monkeypatch.setattr(road.tracer, "_begin", broken)
    (untraced,) = road.session.receive(transaction(300, row(TRACEPARENT)))
    assert context(Record(*untraced)) == {"traceparent": TRACEPARENT}
    assert road.ledger.settle() == 208
    assert "a span is lost" in caplog.text
    assert "an event has no span" in caplog.text


def test_without_a_tracer_nothing_is_exchanged() -> None:
    dead_letters = DeadLetters("dead", shop.outbox())
    assert spans.encoding(None) is Encoding
    assert spans.refusals(None, dead_letters) is dead_letters
    assert spans.refusals(None, None) is None


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "cdc-publisher"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=by-attribute,deployment.environment=test"}, "by-attribute"),
    ],
)
def test_the_environment_has_the_last_word_about_who_we_are(
    variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    road = Road()
    (record,) = road.records(row())
    record.on_delivery(None, None)
    resource = road.spans[0].resource.attributes
    assert (resource["service.name"], resource["cdc.slot"]) == (name, "shop")


def test_a_span_lasts_from_the_commit_whatever_the_time_of_the_record() -> None:
    exporter = InMemorySpanExporter()
    tracer = OpenTelemetry(SimpleSpanProcessor(exporter), "shop", lambda: CONFIRMED)
    outbox = shop.outbox(time="at")
    relation = frames.relation(OID, "outbox", [*COLUMNS, ("at", INT8)])
    event = outbox.event(shop.row(EVENT_ID, "order", "o-1", "OrderPlaced", "{}", "1000", relation=relation))
    record = spans.encoding(tracer)(outbox, Encoders(), Framing()).record(event)
    record.on_delivery(None, Delivery())
    (span,) = exporter.get_finished_spans()
    assert (record.timestamp, span.start_time, span.end_time) == (1000, COMMITTED, CONFIRMED)

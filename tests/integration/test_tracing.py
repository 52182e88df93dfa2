"""Traces through the real program, PostgreSQL and Kafka, to a collector that takes OTLP."""

import json
import re
import secrets
import time
from collections.abc import Iterator

import pytest

from tests import ROOT
from tests.collector import Collected, Collector
from tests.pipeline import Pipeline, eventually

DOCS = (ROOT / "docs" / "tracing.md").read_text()
PRODUCER = 4  # SpanKind of OTLP
TRACED = (
    "insert into outbox (id, aggregatetype, aggregateid, type, payload, traceparent, tracestate)"
    " values (%s, 'note', 'k', %s, %s::jsonb, %s, %s)"
)
CANARY = "canary-header-5c1f"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """One that listens, and an environment that names it."""
    with Collector().listening() as listening:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={CANARY}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        monkeypatch.setenv("CDC_TRACING__ENABLED", "true")
        yield listening


@pytest.fixture
def traced(pipeline: Pipeline) -> Pipeline:
    """A pipeline whose table has the columns of W3C Trace Context, as the docs make them."""
    (statement,) = re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL)
    pipeline.sql(statement)
    return pipeline


def insert(pipeline: Pipeline, traceparent: str | None, seq: object = 1, event_type: str = "Noted") -> str:
    """Insert an event with a trace context; returns its id."""
    ((event_id,),) = pipeline.sql("select gen_random_uuid()::text")
    pipeline.sql(
        TRACED, event_id, event_type, json.dumps({"seq": seq}), traceparent, traceparent and "vendor=1,other=2"
    )
    return str(event_id)


def context() -> tuple[str, str, str]:
    """A new trace: its traceparent, the trace's id, and the span's."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace_id}-{span_id}-01", trace_id, span_id


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_a_trace_goes_on_from_the_row_to_the_record_and_a_span_lasts_from_commit_to_confirmation(
    traced: Pipeline, collector: Collector, guarantee: str
) -> None:
    traced.settings["delivery"] = {"guarantee": guarantee}
    running = traced.start().streams()
    began = time.time_ns()
    traceparent, trace_id, span_id = context()
    inherited, fresh, broken = insert(traced, traceparent), insert(traced, None), insert(traced, "00-no-trace")
    unsampled = insert(traced, f"{traceparent[:-2]}00")
    traced.settles()
    eventually(lambda: len(collector.spans) >= 3, "three spans")
    ended = time.time_ns()
    assert running.stop() == 0

    spans = collector.by_id()
    records = {record.id: record for record in traced.judge()}
    assert spans.keys() == {inherited, fresh, broken}
    assert (spans[inherited].trace_id, spans[inherited].parent) == (trace_id, span_id)
    assert records[inherited].header("traceparent") == f"00-{trace_id}-{spans[inherited].span_id}-01"
    assert records[inherited].header("tracestate") == "vendor=1,other=2"
    assert records[fresh].header("traceparent") == f"00-{spans[fresh].trace_id}-{spans[fresh].span_id}-01"
    assert "tracestate" not in dict(records[fresh].headers)
    assert records[broken].header("traceparent") == "00-no-trace"
    assert records[unsampled].header("traceparent") == f"{traceparent[:-2]}00"
    assert [spans[one].parent for one in (fresh, broken)] == ["", ""]
    for event_id, span in spans.items():
        record = records[event_id]
        assert (span.name, span.kind, span.failed) == (f"publish {traced.topic}", PRODUCER, False)
        assert span.began == record.timestamp[1] * 1_000_000
        assert began - 1_000_000 <= span.began <= span.ended <= ended
        assert span.attributes["cdc.position"] == record.position
        if guarantee == "at-least-once":
            assert span.attributes["messaging.destination.partition.id"] == str(record.partition)
            assert span.attributes["messaging.kafka.offset"] == record.offset
        assert span.resource["service.name"] == "cdc-publisher"
        assert span.resource["cdc.slot"] == traced.slot
    assert {headers["api-key"] for headers in collector.headers} == {CANARY}
    assert CANARY not in json.dumps(running.log)


def test_poison_has_a_span_of_the_error_be_it_a_dead_letter_or_the_end(traced: Pipeline, collector: Collector) -> None:
    traced.settings["delivery"] = {"on_poison": "dead-letter"}
    running = traced.start().streams()
    traceparent, trace_id, _ = context()
    letter = insert(traced, traceparent, "seven")
    traced.settles()
    assert running.stop() == 0
    traced.settings["delivery"] = {"on_poison": "stop"}
    stopping = traced.start().streams()
    last = insert(traced, traceparent, event_type="Unknown")
    assert stopping.wait() == 1

    spans = collector.by_id()
    dead = traced.settings["topics"]["dead_letter"]
    assert_failed(spans[letter], trace_id, f"publish {dead}", "payload-mismatch", "$.seq")
    assert_failed(spans[last], trace_id, f"publish {traced.topic}", "contract-missing", "Unknown")


def assert_failed(span: Collected, trace_id: str, name: str, kind: str, reason: str) -> None:
    assert (span.trace_id, span.name, span.failed) == (trace_id, name, True)
    assert span.attributes["error.type"] == kind
    assert reason in span.reason


def test_a_collector_that_refuses_or_is_gone_costs_spans_and_nothing_else(
    traced: Pipeline, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.status = 401
    running = traced.start().streams()
    for seq in range(20):
        insert(traced, context()[0], seq)
    traced.settles()
    eventually(lambda: len(collector.headers) > 0, "it was asked")
    assert running.stop() == 0
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    away = traced.start().streams()
    insert(traced, context()[0], 20)
    traced.settles()
    assert away.stop() == 0
    assert len(traced.judge()) == 21
    assert collector.spans == []
    for log in (running.log, away.log):
        told = [line for line in log if str(line.get("logger")).startswith("opentelemetry")]
        assert 1 <= len(told) < 15
        assert CANARY not in json.dumps(log)


def test_tracing_that_cannot_be_had_is_refused_before_anything_starts(
    bare_pipeline: Pipeline,
) -> None:
    done = bare_pipeline.run_process("start", CDC_TRACING__ENABLED="true", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == (
        "cdc-publisher: [tracing] OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': spans are only exported by OTLP over HTTP;"
        " set it to http/protobuf, or leave it out"
    )

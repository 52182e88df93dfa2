"""docs/tracing.md: its examples carry a trace from a service through the outbox to a consumer."""

import re
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cdc.consumer import Event
from tests import ROOT
from tests.unit.telemetry.test_tracing import Delivery, Road, row

DOCS = (ROOT / "docs" / "tracing.md").read_text()
SERVICE, CONSUMER = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)


class Cursor:
    """Keeps what is inserted."""

    def execute(self, statement: str, values: list[Any]) -> None:
        assert statement.count("%s") == len(values)
        self.values = values


class Message:
    """A record as confluent-kafka hands it to a consumer."""

    def __init__(self, headers: list[tuple[str, Any]]) -> None:
        self._headers = [(name, value.encode()) for name, value in headers]

    def headers(self) -> Any:
        return self._headers

    def topic(self) -> str:
        return "outbox.event.order"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000

    def key(self) -> bytes:
        return b"o-1"

    def value(self) -> bytes:
        return b"{}"


def test_the_examples_of_the_docs_make_one_trace_of_service_publisher_and_consumer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    service: dict[str, Any] = {}
    consumer: dict[str, Any] = {}
    exec(SERVICE, service)
    exec(CONSUMER, consumer)

    cursor, road = Cursor(), Road()
    with provider.get_tracer("shop").start_as_current_span("POST /orders") as request:
        service["insert"](cursor, ["order", "o-1", "OrderPlaced", "{}"])
    (record,) = road.records(row(*cursor.values[-2:]))
    record.on_delivery(None, None)
    consumer["handle"](Event.of(Message(record.headers)))

    (published,) = road.spans
    processed = exporter.get_finished_spans()[-1]
    assert processed.name == "process outbox.event.order"
    assert published.parent
    assert processed.parent
    assert published.context
    assert published.parent.span_id == request.get_span_context().span_id
    assert processed.parent.span_id == published.context.span_id
    assert processed.context
    assert processed.context.trace_id == request.get_span_context().trace_id
    assert "OrderPlaced" in capsys.readouterr().out


def test_the_docs_name_every_attribute_of_a_span() -> None:
    road = Road()
    (record,) = road.records(row())
    record.on_delivery(None, Delivery())
    (span,) = road.spans
    for name in span.attributes or {}:
        assert f"`{name}`" in DOCS, name

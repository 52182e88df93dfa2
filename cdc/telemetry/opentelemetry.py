"""The tracer with OpenTelemetry. Its own environment variables (OTEL_…) configure sampling and export.

<https://opentelemetry.io/docs/specs/semconv/messaging/kafka/>
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NoOpTracer, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cdc import __version__
from cdc.errors import ConfigError, PoisonEvent
from cdc.logs.format import hidden
from cdc.telemetry.spans import SpanFacts

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 3.0
_PROTOCOL: Final = "http/protobuf"
_SAMPLED: Final = int(TraceFlags.SAMPLED)


class OpenTelemetry:
    """A tracer that passes spans to `processor`. Not thread-safe."""

    def __init__(
        self, processor: SpanProcessor, slot: str = "", unix_nanoseconds: Callable[[], int] = time.time_ns
    ) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(resource=_resource(slot), id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._sampler = self._provider.sampler
        self._tracer = self._provider.get_tracer("cdc-publisher", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._now = unix_nanoseconds

    @property
    def disabled(self) -> bool:
        """Whether OTEL_SDK_DISABLED is set."""
        return isinstance(self._tracer, NoOpTracer)

    def begin(self, facts: SpanFacts, carrier: Mapping[str, str]) -> "_Span | None":
        """See `cdc.telemetry.spans.Tracer`."""
        try:
            return self._begin(facts, carrier)
        except Exception:
            log.warning("an event has no span", exc_info=True, extra={"event": "span_missing"})
            return None

    def _begin(self, facts: SpanFacts, carrier: Mapping[str, str]) -> "_Span | None":
        context = self._context(carrier)
        parent = trace.get_current_span(context).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else self._ids.new_trace_id()
        sampled = self._sampler.should_sample(context, trace_id, _name(facts), SpanKind.PRODUCER, _attributes(facts))
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        state = None if parent.is_valid else sampled.trace_state  # a sampler may have made one
        tracestate = state.to_header() if state else ""
        return _Span(self, facts, carrier, trace_id, self._ids.new_span_id(), parent.is_valid, tracestate)

    def _context(self, carrier: Mapping[str, str]) -> Context:
        return self._propagator.extract(carrier, Context())

    def export(self, span: "_Span", more: Mapping[str, str | int], status: Status | None) -> None:
        """Export a span that has ended. The library's span is only made now, so that spans in flight are small."""
        facts = span.facts
        self._ids.next = span.trace_id, span.span_id
        began = facts.timestamp * 1_000_000
        attributes = {**_attributes(facts), **more}
        context = self._context(span.carrier)
        made = self._tracer.start_span(_name(facts), context, SpanKind.PRODUCER, attributes, start_time=began)
        if status:
            made.set_status(status)
        made.end(max(began, self._now()))  # PostgreSQL's clock may be ahead

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Export the remaining spans within `seconds`."""
        # The library waits half a minute, and longer for some collectors.
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(seconds)
        if last.is_alive():
            log.warning("the last spans were not exported within %g s", seconds, extra={"event": "spans_not_exported"})


class _Span:
    """Span of one event, until it ends."""

    __slots__ = ("_poison", "_tracer", "carrier", "facts", "follows", "span_id", "trace_id", "tracestate")

    def __init__(
        self,
        tracer: OpenTelemetry,
        facts: SpanFacts,
        carrier: Mapping[str, str],
        trace_id: int,
        span_id: int,
        follows: bool,
        tracestate: str,
    ) -> None:
        self._tracer = tracer
        self.facts = facts
        self.carrier = carrier
        self.trace_id = trace_id
        self.span_id = span_id
        self.follows = follows
        self.tracestate = tracestate
        self._poison: PoisonEvent | None = None

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{_SAMPLED:02x}"

    def refuse(self, poison: PoisonEvent) -> None:
        self._poison = poison

    def end(self, error: object, message: object) -> None:
        try:
            self._tracer.export(self, *self._outcome(error, message))
        except Exception:
            log.warning("a span is lost", exc_info=True, extra={"event": "span_lost"})

    def _outcome(self, error: Any, message: Any) -> tuple[dict[str, str | int], Status | None]:
        if error is not None:
            return {"error.type": error.name()}, Status(StatusCode.ERROR, hidden(error.str()))
        more: dict[str, str | int] = {}
        if message is not None:
            more["messaging.destination.partition.id"] = str(message.partition())
            if message.offset() is not None:
                more["messaging.kafka.offset"] = message.offset()
        if self._poison is None:
            return more, None
        more["error.type"] = self._poison.kind
        return more, Status(StatusCode.ERROR, hidden(self._poison.reason))


class _Ids(RandomIdGenerator):
    """Generates for a span the ids that its record was sent with."""

    next = 0, 0  # of the trace, and of the span

    def generate_trace_id(self) -> int:
        return self.next[0]

    def generate_span_id(self) -> int:
        return self.next[1]

    def new_trace_id(self) -> int:
        return super().generate_trace_id()

    def new_span_id(self) -> int:
        return super().generate_span_id()


def _name(facts: SpanFacts) -> str:
    return f"publish {facts.topic}".rstrip()


def _attributes(facts: SpanFacts) -> dict[str, str | int]:
    found: dict[str, str | int | None] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": facts.topic or None,
        "messaging.message.id": facts.id or None,
        "messaging.message.body.size": facts.size,
        "cdc.event.type": facts.type or None,
        "cdc.position": facts.position,
    }
    return {name: value for name, value in found.items() if value is not None}


def _resource(slot: str) -> Resource:
    ours = {"service.name": "cdc-publisher", "service.version": __version__}
    if slot:
        ours["cdc.slot"] = slot
    return Resource.create(ours).merge(OTELResourceDetector().detect())  # the environment overrides


def exporting(slot: str) -> OpenTelemetry | None:
    """Return a tracer that exports by OTLP over HTTP; None when OpenTelemetry's environment disables exporting.

    Raises ConfigError for a setting in the environment that is not supported.
    """
    _check("OTEL_TRACES_EXPORTER", "otlp", "none")
    protocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    _check(protocol if os.environ.get(protocol) else "OTEL_EXPORTER_OTLP_PROTOCOL", _PROTOCOL)
    if os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        _check_address(variable)
    try:
        tracer = OpenTelemetry(BatchSpanProcessor(OTLPSpanExporter()), slot)
    except Exception as error:  # of any class: of the library and of its dependencies
        raise ConfigError(
            f"[tracing] OpenTelemetry does not take its environment: {str(error).rstrip('.')}",
            hint="correct the variables OTEL_…, or set [tracing] enabled = false",
        ) from error
    if tracer.disabled:
        tracer.close()
        return None
    return tracer


def _check_address(variable: str) -> None:
    value = os.environ.get(variable)
    if value and not value.lower().startswith(("http://", "https://")):
        # Without its value, which may contain a password.
        raise ConfigError(f"[tracing] {variable} is no address of HTTP", hint="such as http://collector:4318")


def _check(variable: str, *known: str) -> None:
    value = os.environ.get(variable)
    if value and value not in known:
        raise ConfigError(
            f"[tracing] {variable} is {value!r}: spans are only exported by OTLP over HTTP",
            hint=f"set it to {known[0]}, or leave it out",
        )

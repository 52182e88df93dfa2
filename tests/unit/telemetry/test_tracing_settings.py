"""Tracing as it is asked for: the setting, the extra, OpenTelemetry's own environment, and its end."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from cdc.config import environment
from cdc.config.masking import MASK
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.telemetry import setup as tracing
from cdc.telemetry import spans
from cdc.telemetry.opentelemetry import OpenTelemetry, exporting
from tests.unit.shop import COMMIT_TIME_MS

POSITION = "0badcafe-00000000000000C8-00000000"


def settings(*, enabled: bool) -> Settings:
    return Settings.model_validate({"postgres": {"dsn": "postgresql://nowhere"}, "tracing": {"enabled": enabled}})


def test_nothing_is_traced_unless_it_is_asked_for() -> None:
    assert Settings().tracing.enabled is False
    with tracing.opened(settings(enabled=False)) as tracer:
        assert tracer is None


def test_tracing_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cdc.telemetry.opentelemetry", None)
    monkeypatch.delattr("cdc.telemetry.opentelemetry")
    with pytest.raises(ConfigError, match=r"pip install cdc-publisher\[otel\]"), tracing.opened(settings(enabled=True)):
        pass


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'.* set it to http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is 'http/json'"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER is 'zipkin'.* set it to otlp"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "does not take its environment: max_queue_size"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "OTEL_EXPORTER_OTLP_ENDPOINT is no address of HTTP"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://c:4317", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is no address"),
    ],
)
def test_an_environment_that_cannot_be_followed_is_an_error(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=told), tracing.opened(settings(enabled=True)):
        pass


@pytest.mark.parametrize(("variable", "value"), [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true")])
def test_an_environment_that_wants_no_spans_gets_none_and_is_told(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, value)
    with tracing.opened(settings(enabled=True)) as tracer:
        assert tracer is None
    assert "nothing is exported" in caplog.text


def test_the_log_of_the_start_says_where_spans_go_without_the_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@127.0.0.1:9")
    with caplog.at_level(logging.INFO), tracing.opened(settings(enabled=True)) as tracer:
        assert tracer
    (told,) = [vars(record)["endpoint"] for record in caplog.records if record.name == "cdc.telemetry.setup"]
    assert told == f"http://me:{MASK}@127.0.0.1:9"


def test_secrets_of_the_exporters_environment_are_known() -> None:
    found = environment.secrets(
        {
            "PGPASSWORD": "pg-secret",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=otel%20key, authorization=Bearer bearer-secret,bare-token",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://me:url-secret@collector/v1/traces",
        }
    )
    assert {"pg-secret", "otel%20key", "otel key", "bearer-secret", "bare-token", "url-secret"} <= found
    assert environment.secrets({}) == set()


class Hanging(SpanExporter):
    """A collector that does not answer."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        self.asked.set()
        self.go_on.wait(60)
        return SpanExportResult.SUCCESS


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    exporter = Hanging()
    yield exporter
    exporter.go_on.set()


def test_an_end_does_not_wait_for_a_collector_that_hangs(hanging: Hanging, caplog: pytest.LogCaptureFixture) -> None:
    tracer = OpenTelemetry(BatchSpanProcessor(hanging))
    span = tracer.begin(spans.SpanFacts("t", "i", "T", POSITION, COMMIT_TIME_MS, 1), {})
    assert span
    span.end(None, None)
    tracer.close(0.05)
    assert hanging.asked.wait(30)
    assert not hanging.go_on.is_set()
    assert "the last spans were not exported within 0.05 s" in caplog.text


def test_spans_wait_in_a_queue_of_bounds_and_delivery_does_not(hanging: Hanging) -> None:
    processor = BatchSpanProcessor(hanging, max_queue_size=10, max_export_batch_size=1, schedule_delay_millis=1)
    tracer = OpenTelemetry(processor)
    for _ in range(1000):
        span = tracer.begin(spans.SpanFacts("t", "i", "T", POSITION, COMMIT_TIME_MS, 1), {})
        assert span
        span.end(None, None)
    assert len(processor._batch_processor._queue) <= 10
    tracer.close(0.01)


def test_the_exporter_is_made_by_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    tracer = exporting("shop")
    assert tracer
    tracer.close()


def test_the_start_does_not_need_the_extra() -> None:
    imports = "import cdc.cli.publishing; from cdc.cli.start import start"
    program = f"import sys; sys.modules['opentelemetry'] = None; {imports}; print(start.name)"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"start\n"

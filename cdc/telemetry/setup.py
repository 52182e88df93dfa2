"""Opens the tracer if `[tracing] enabled` is set, which needs the extra `otel`."""

import contextlib
import logging
import os
from collections.abc import Iterator

from cdc.config.masking import mask_url
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.telemetry.spans import Tracer

log = logging.getLogger(__name__)

_ENDPOINT = "http://localhost:4318"


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Tracer | None]:
    """Open the tracer, or None without tracing; its last spans are exported at the end.

    Raises ConfigError when tracing is enabled and OpenTelemetry cannot be loaded.
    """
    if not settings.tracing.enabled:
        yield None
        return
    try:
        from cdc.telemetry import opentelemetry  # only here: an extra, and it takes 0.3 s to import
    except ImportError as error:
        raise ConfigError(
            f"[tracing] enabled: OpenTelemetry cannot be loaded: {error}",
            hint="install it with `pip install cdc-publisher[otel]`, or set enabled = false",
        ) from None
    tracer = opentelemetry.exporting(settings.postgres.slot)
    if tracer is None:
        log.warning(
            "tracing is enabled, but OpenTelemetry's environment says that nothing is exported",
            extra={"event": "tracing_exports_nothing"},
        )
        yield None
        return
    log.info("spans are exported", extra={"event": "tracing_started", "endpoint": _endpoint()})
    with contextlib.closing(tracer):
        yield tracer


def _endpoint() -> str:
    variables = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return mask_url(next(filter(None, map(os.environ.get, variables)), _ENDPOINT))

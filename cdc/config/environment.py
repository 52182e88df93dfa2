"""Secrets in environment variables that are no settings: those of libpq, OpenTelemetry and Kafka Connect."""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from cdc.config import masking

_OTLP: Final = ("OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES")


def secrets(environ: Mapping[str, str]) -> set[str]:
    """Return each secret, both as written in `environ` and decoded."""
    found = {environ.get(name, "") for name in ("PGPASSWORD", "CDC_CONNECT_PASSWORD", "CDC_CONNECT_TOKEN")}
    for prefix in _OTLP:
        found |= masking.secrets({"otlp": {"url": environ.get(f"{prefix}_ENDPOINT", "")}})
        found |= set(_of_headers(environ.get(f"{prefix}_HEADERS", "")))
    return found - {""}


def _of_headers(text: str) -> Iterator[str]:
    """Yield the values of `name=value,name=value`, percent-encoded and decoded; a value may be a scheme and a secret.

    OpenTelemetry's exporter logs a malformed pair, so a pair without `=` is treated as a secret in full.
    """
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        written = (value or name).strip()
        for value in (written, unquote(written)):
            yield value
            yield from value.split()[-1:]

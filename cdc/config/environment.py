"""Secrets in the environment that are no settings of ours: libpq and OpenTelemetry read them there themselves."""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from cdc.config import masking

_OTLP: Final = ("OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES")


def secrets(environ: Mapping[str, str]) -> set[str]:
    """Each as it is and as it is written there."""
    found = {environ.get("PGPASSWORD", "")}
    for prefix in _OTLP:
        found |= masking.secrets({"otlp": {"url": environ.get(f"{prefix}_ENDPOINT", "")}})
        found |= set(_of_headers(environ.get(f"{prefix}_HEADERS", "")))
    return found - {""}


def _of_headers(text: str) -> Iterator[str]:
    """Of `name=value,name=value`, percent-encoded; a value may be a scheme and a secret.

    What is not written like that is told in the exporter's log: it is taken for a secret as a whole.
    """
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        written = (value or name).strip()
        for value in (written, unquote(written)):
            yield value
            yield from value.split()[-1:]

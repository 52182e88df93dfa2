"""Logs: one sentence and fields, as text for people or as JSON for machines, on standard error."""

import logging
import re
import sys
import time
from typing import Any, Final

import orjson

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUOTED: Final = re.compile(r"[\s\"\\\x00-\x1f]")
_REPEAT_SECONDS: Final = 30.0


def configure(log_format: str, *, verbose: bool) -> None:
    """Send all logs to standard error. `log_format` is `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{_time(record)} {record.levelname.lower():7} {record.getMessage()}{fields}{trace}"


def _plain(value: Any) -> str:
    text = "-" if value is None else str(value)
    # Quoted as JSON where it would not read as one word: a line stays a line.
    return orjson.dumps(text).decode() if _QUOTED.search(text) else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _Repeats(logging.Filter):
    """Drops what librdkafka repeats: it logs each failed attempt to connect to each broker."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("cdc.kafka.librdkafka"):
            return True
        kind = record.getMessage().split("]:")[0]
        last = self._seen.get(kind, float("-inf"))
        if record.created - last < _REPEAT_SECONDS:
            return False
        self._seen[kind] = record.created
        return True

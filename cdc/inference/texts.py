"""Recognise texts in the one notation of a date, a timestamp in UTC or a UUID, and names that Avro accepts."""

import datetime
import re
from typing import Final

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)(?:Z|\+00:00)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST: Final = 64

ALL: Final = frozenset({"date", "timestamp", "uuid", "symbol"})


def notations(text: str) -> frozenset[str]:
    """Return which of ALL a text is; `symbol` is a short name that Avro accepts."""
    if len(text) > _LONGEST:
        return frozenset()
    if _NAME.fullmatch(text):
        return frozenset({"symbol"})
    if _UUID.fullmatch(text):
        return frozenset({"uuid"})
    if _DATE.fullmatch(text):
        return frozenset({"date"} if _is_date(text) else ())
    return frozenset({"timestamp"} if instant(text) else ())


def instant(text: str) -> datetime.datetime | None:
    """Return the instant of a timestamp in UTC with up to 6 decimal places of a second; None for any other text."""
    found = _TIMESTAMP.fullmatch(text)
    try:
        return datetime.datetime.fromisoformat(f"{found[1]}+00:00") if found else None
    except ValueError:
        return None


def is_name(text: str) -> bool:
    """Return whether Avro accepts a text as the name of a field."""
    return _NAME.fullmatch(text) is not None


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True

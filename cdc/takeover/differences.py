"""Compares a record of the publisher with Debezium's record of the same event."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from cdc.records.headers import CONTENT_TYPE, POSITION, SEQUENCE, TYPE
from cdc.records.partitioner import partition

_DEBEZIUM: Final = "__debezium.context."
_MADE: Final = (POSITION, TYPE, CONTENT_TYPE, SEQUENCE)  # the publisher's, in all records
_LONGEST: Final = 60


class Compared(NamedTuple):
    """One record of either program; the publisher's has no partition yet."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes | None]


class Difference(NamedTuple):
    """What differs for an event, as Debezium has it and as the publisher makes it."""

    kind: str
    event_id: str
    theirs: str
    ours: str


def differences(
    event_id: str, theirs: Compared, ours: Compared, payload: bytes | None, partitions: int
) -> Iterator[Difference]:
    """Yield what differs; `payload` is the row's, and `partitions` is the number of the topic.

    A value with other bytes is compared with the row: Debezium's expanded JSON lacks nulls and empty arrays.
    """
    if theirs.topic != ours.topic:
        yield Difference("topic", event_id, theirs.topic, ours.topic)
    if theirs.key != ours.key:
        yield Difference("key", event_id, _shown(theirs.key), _shown(ours.key))
    if ours.key is not None and (moved := partition(ours.key, partitions)) != theirs.partition:
        yield Difference("partition", event_id, str(theirs.partition), str(moved))
    if theirs.value != ours.value:
        kind = "encoding of the value" if _is_json_of(theirs.value, payload) else "value"
        yield Difference(kind, event_id, _shown(theirs.value), _shown(ours.value))
    for name in sorted(theirs.headers.keys() | ours.headers.keys()):
        if name.startswith(_DEBEZIUM) or (name in _MADE and name not in theirs.headers):
            continue
        if name not in theirs.headers or name not in ours.headers or theirs.headers[name] != ours.headers[name]:
            yield Difference(f"header {name}", event_id, _header(theirs, name), _header(ours, name))


def _is_json_of(value: bytes | None, payload: bytes | None) -> bool:
    """Whether a value is the row's JSON: alone, as a quoted string, or with a schema."""
    if value is None or payload is None:
        return False
    try:
        expected, given = json.loads(payload), json.loads(value)
        if isinstance(given, dict) and given.keys() == {"schema", "payload"}:
            given = given["payload"]
        if isinstance(given, str) and not isinstance(expected, str):
            given = json.loads(given)
    except ValueError:
        return False
    return bool(given == expected)


def _header(record: Compared, name: str) -> str:
    return _shown(record.headers[name]) if name in record.headers else "(missing)"


def _shown(value: bytes | None) -> str:
    if value is None:
        return "(null)"
    text = value.decode(errors="backslashreplace")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def counted(found: Sequence[Difference]) -> dict[str, int]:
    """Return how many events have each kind of difference."""
    counts: dict[str, int] = {}
    for one in found:
        counts[one.kind] = counts.get(one.kind, 0) + 1
    return counts

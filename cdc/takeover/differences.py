"""Compares a record of the publisher with Debezium's record of the same event."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from cdc.records.headers import POSITION, TYPE
from cdc.records.partitioner import partition

_DEBEZIUM: Final = "__debezium.context."
_MADE: Final = (POSITION, TYPE)  # the publisher's, in all records


class Compared(NamedTuple):
    """One record of either program."""

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

    Values with other bytes are compared with the row: Debezium's expanded JSON lacks nulls and empty arrays.
    """
    if theirs.topic != ours.topic:
        yield Difference("topic", event_id, theirs.topic, ours.topic)
    if theirs.key != ours.key:
        yield Difference("key", event_id, _shown(theirs.key), _shown(ours.key))
    if ours.key is not None and (moved := partition(ours.key, partitions)) != theirs.partition:
        yield Difference("partition", event_id, str(theirs.partition), str(moved))
    if theirs.value != ours.value:
        same = _is_json_of(theirs.value, payload)
        yield Difference("bytes of the value" if same else "value", event_id, _shown(theirs.value), _shown(ours.value))
    for name in sorted(theirs.headers.keys() | ours.headers.keys()):
        if name in _MADE and name not in theirs.headers:
            continue
        if name.startswith(_DEBEZIUM):
            continue
        mine, other = ours.headers.get(name, b"(missing)"), theirs.headers.get(name, b"(missing)")
        if mine != other:
            yield Difference(f"header {name}", event_id, _shown(other), _shown(mine))


def _is_json_of(value: bytes | None, payload: bytes | None) -> bool:
    """Whether a value is the row's JSON: alone, as a quoted string, or with a schema."""
    if value is None or payload is None:
        return False
    try:
        expected, given = json.loads(payload), json.loads(value)
        for _ in range(2):
            if isinstance(given, dict) and given.keys() == {"schema", "payload"}:
                given = given["payload"]
            if isinstance(given, str) and not isinstance(expected, str):
                given = json.loads(given)
    except ValueError:
        return False
    return bool(given == expected)


def _shown(value: bytes | None, longest: int = 60) -> str:
    if value is None:
        return "(none)"
    text = value.decode(errors="backslashreplace")
    return text if len(text) <= longest else f"{text[:longest]}..."


def counted(found: Sequence[Difference]) -> dict[str, int]:
    """Return how many events have each kind of difference."""
    counts: dict[str, int] = {}
    for one in found:
        counts[one.kind] = counts.get(one.kind, 0) + 1
    return counts

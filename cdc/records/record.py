"""One Kafka record, and how large it is for Kafka, which compares that with a topic's `max.message.bytes`.

<https://kafka.apache.org/documentation/#messageformat> (version 2)
"""

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Final, NamedTuple, Self

Headers = list[tuple[str, str | bytes | None]]


Delivered = Callable[[object, object], None]
"""Called once for each record, with None or the error, and the client library's message."""


class Record(NamedTuple):
    """One Kafka record with its delivery callback: the arguments of the client library's `produce`.

    They are in its order, so that a record is handed over as it is, which is 0.2 us less than argument by argument.
    <https://docs.confluent.io/platform/current/clients/confluent-kafka-python/html/index.html>
    """

    topic: str
    value: bytes | None  # None: a tombstone
    key: bytes | None  # None: it is null, or cannot be read for a dead letter
    partition: int  # -1: by the key
    on_delivery: Delivered
    callback: None  # `produce` has two names for the one before
    timestamp: int  # milliseconds since 1970
    headers: Headers

    @classmethod
    def to(
        cls,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        headers: Headers,
        on_delivery: Delivered,
    ) -> Self:
        """A record that goes where its key belongs; see the fields."""
        return cls(topic, value, key, -1, on_delivery, None, timestamp, headers)


Sendable = tuple[str, bytes | None, bytes | None, int, Delivered, None, int, Headers]
"""A record as a sink takes it: a Record, or its parts in a bare tuple, which is 0.3 us cheaper."""


_topic: Final = itemgetter(0)


_value: Final = itemgetter(1)


def topics_of(records: Iterable[Sendable]) -> Iterator[str]:
    """The topic of each record."""
    return map(_topic, records)


def value_bytes(records: Iterable[Sendable]) -> int:
    """How many bytes the values of records have together."""
    return sum(map(len, filter(None, map(_value, records))))


_BATCH_BYTES: Final = 61  # the header of a record batch


_RECORD_BYTES: Final = 3  # attributes, and the deltas of timestamp and offset, which are 0 for the only record


def batch_size(record: Record) -> int:
    """Bytes of a record batch, uncompressed, that holds just this record."""
    body = _RECORD_BYTES + _bytes(record.key) + _bytes(record.value) + _varint(len(record.headers))
    for name, value in record.headers:
        body += _bytes(name.encode()) + _bytes(value.encode() if isinstance(value, str) else value)
    return _BATCH_BYTES + _varint(body) + body


def at_most(record: Record) -> int:
    """No less than `batch_size`, for a seventh of its cost (0.3 us): most records are far from any limit."""
    size = _BATCH_BYTES + 64 + len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += 4 * (len(name) + len(value or b"")) + 10  # a character has up to 4 bytes, a length up to 5
    return size


def _bytes(value: bytes | None) -> int:
    return 1 if value is None else _varint(len(value)) + len(value)


def _varint(number: int) -> int:
    """Bytes of a length as a zigzag varint."""
    return max(1, ((number << 1).bit_length() + 6) // 7)

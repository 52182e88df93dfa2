"""How large a record is for Kafka: what a topic's `max.message.bytes` is compared with.

<https://kafka.apache.org/documentation/#messageformat> (version 2)
"""

from typing import Final

from cdc.records.encoding import Record

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

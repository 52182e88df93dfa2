"""Which partition a key goes to: what librdkafka's `murmur2_random` does, and Java's producers.

Slow, so only for the few records of a session for which it has to be known beforehand.
"""

import functools
from typing import Final

_SEED: Final = 0x9747B28C
_MIX: Final = 0x5BD1E995
_BITS: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 that Kafka uses."""
    whole = len(data) & ~3
    hashed = _SEED ^ len(data)
    for place in range(0, whole, 4):
        word = int.from_bytes(data[place : place + 4], "little") * _MIX & _BITS
        word = (word ^ word >> 24) * _MIX & _BITS
        hashed = (hashed * _MIX & _BITS) ^ word
    if whole < len(data):
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * _MIX & _BITS
    hashed = (hashed ^ hashed >> 13) * _MIX & _BITS
    return hashed ^ hashed >> 15


@functools.lru_cache(maxsize=10_000)
def partition(key: bytes, partitions: int) -> int:
    """The partition of a key, of so many."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions

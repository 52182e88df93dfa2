"""The header `cdc-sequence`: numbers from 1 in each partition, without a gap, so that a consumer sees a loss at once.

A number belongs to a place in the partition, so the partition is chosen here and not by the client library, in the
same way. Each session goes on behind what the partition holds.
"""

from collections.abc import Callable
from typing import Final

from cdc.delivery.ports import Tails
from cdc.records.encoding import Pending
from cdc.records.partitioner import partition
from cdc.records.record import Record

SEQUENCE: Final = "cdc-sequence"


class Sequences:
    """The numbers of one session. `partitions` says how many a topic has, None while that is not known."""

    def __init__(self, tails: Tails, partitions: Callable[[str], int | None]) -> None:
        self._tails = tails
        self._partitions = partitions
        self._last: dict[tuple[str, int], int] = {}

    def numbered(self, record: Record) -> Record:
        """The record with its number and its partition; it has to be `taken` before the next one is numbered.

        Raises Pending while the last number is not known, and Kafka's errors.
        """
        partitions = self._partitions(record.topic)
        if not partitions:
            raise Pending
        place = partition(record.key or b"", partitions)
        last = self._last.get((record.topic, place))
        if last is None:
            tail = self._tails.ask(record.topic, record.timestamp)
            if tail is None:
                raise Pending
            last = self._last[record.topic, place] = tail.sequence(place)
        return record._replace(headers=[*record.headers, (SEQUENCE, str(last + 1))], partition=place)

    def taken(self, record: Record) -> None:
        """A numbered record will be sent."""
        self._last[record.topic, record.partition] += 1

"""The header `cdc-sequence`: numbers from 1 in each partition, without a gap, by which a consumer notices a loss.

A number belongs to a place in the partition, so the partition is chosen here and not by the client library, in the
same way. Each session continues behind the last number that the partition holds.
"""

from collections.abc import Callable
from typing import Final

from cdc.delivery.ports import Tails
from cdc.records.headers import SEQUENCE
from cdc.records.partitioner import partition
from cdc.records.path import Path, Taken
from cdc.records.record import Record, Sendable
from cdc.records.router import Pending
from cdc.replication.settlement import Transaction

HEADER_BYTES: Final = 35
"""What the header adds to a record at the most: its name, 19 digits, their lengths, and longer lengths around them."""


class Sequences:
    """The last numbers of one session. `partitions` returns how many a topic has, None while that is not known."""

    def __init__(self, tails: Tails, partitions: Callable[[str], int | None]) -> None:
        self._tails = tails
        self._partitions = partitions
        self._last: dict[tuple[str, int], int] = {}
        self._begun: dict[tuple[str, int], int] = {}

    def begin(self) -> None:
        """Begin a batch of which all records are sent, or none."""
        self._begun = dict(self._last)

    def back(self) -> None:
        """Take back the numbers of the batch: its records were not sent."""
        self._last = dict(self._begun)

    def numbered(self, record: Record) -> Record:
        """Give a record the next number of its partition. Raises Pending while that is not known, and Kafka's errors.

        Each record that is numbered must be sent.
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
            last = tail.sequence(place)
        self._last[record.topic, place] = last + 1
        return record._replace(headers=[*record.headers, (SEQUENCE, str(last + 1))], partition=place)


class Numbering:
    """Wraps a path and numbers its records. Those that wait for their number are kept until `take` is repeated."""

    def __init__(self, path: Path, sequences: Sequences) -> None:
        self.path = path
        self._sequences = sequences
        self._waiting: Taken | None = None
        self._numbered: list[Sendable] = []

    def take(self, frames: list[bytes], at: int, transaction: Transaction) -> Taken:
        """See `cdc.records.path.Path`."""
        taken = self._waiting or self.path.take(frames, at, transaction)
        self._waiting = taken
        for record in taken.records[len(self._numbered) :]:
            self._numbered.append(self._sequences.numbered(Record(*record)))
        numbered, self._waiting, self._numbered = self._numbered, None, []
        return taken._replace(records=numbered)

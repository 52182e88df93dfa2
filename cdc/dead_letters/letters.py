"""The source of `dlq replay`: dead letters, each with the marker that it was replayed."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from cdc.config.settings import Settings
from cdc.dead_letters.producer import Outgoing
from cdc.dead_letters.record_maker import RecordMaker
from cdc.dead_letters.replays import Replays, marker
from cdc.dead_letters.resend import attempt
from cdc.dead_letters.topic import DeadLetterTopic, Entry
from cdc.errors import CdcError
from cdc.logs.format import plain
from cdc.records.record import Record

_BATCH: Final = 2000
_BATCH_BYTES: Final = 8_388_608


class Letters:
    """The letters of `topic` that `entries` lists when the first batch is asked for."""

    whole = False

    def __init__(
        self, settings: Settings, topic: DeadLetterTopic, entries: Callable[[], Iterable[Entry]], maker: RecordMaker
    ) -> None:
        self._topic = topic
        self._entries = entries
        self._maker = maker
        self._replays = Replays(
            maker.encoding,
            tombstones=settings.outbox.tombstones,
            times=settings.record.time_column is not None,
        )

    def batches(self) -> Iterator[list[Entry]]:
        """Yield the entries, in batches that are limited by number and by payload size."""
        batch: list[Entry] = []
        size = 0
        for entry in self._entries():
            if batch and (len(batch) == _BATCH or size + entry.size > _BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(entry)
            size += entry.size
        if batch:
            yield batch

    def records(self, batch: list[Entry], at: str) -> Iterator[tuple[Entry, Record | CdcError]]:
        """Yield the record of each letter, or why there is none."""
        found = self._topic.fetch(batch)
        for entry in batch:
            letter = found.get(entry.position)
            if letter is None:
                yield entry, CdcError("it is not in the topic any more")
            else:
                make = partial(self._replays.record, letter, at)
                yield entry, attempt(partial(self._maker.make, letter.type, make))

    def outgoing(self, entry: Entry, record: Record, at: str) -> Outgoing:
        """Return the record and its marker, which goes to the partition of the letter."""
        return Outgoing(record, marker(self._topic.name, entry, at, time.time_ns() // 1_000_000), entry.partition)

    def refuse(self, entry: Entry, error: CdcError) -> None:
        """Leave a letter that Kafka refuses."""

    def name(self, entry: Entry) -> str:
        """Return the id and the position."""
        return f"{plain(entry.id) or '(no id)'} at {entry.position}"

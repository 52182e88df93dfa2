"""The work of `dlq replay`: letters in, records and markers out, batch by batch."""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from cdc.config.settings import Settings
from cdc.dead_letters.replays import Replays, marker
from cdc.dead_letters.sending import Replay, Sending
from cdc.dead_letters.topic import Entry, Topic
from cdc.dead_letters.workbench import Workbench, now
from cdc.errors import CdcError, PoisonEvent, Temporary
from cdc.logs.format import plain
from cdc.records.record import Record

_BATCH: Final = 2000
_BATCH_BYTES: Final = 8_388_608


class Told(NamedTuple):
    """What became of one letter."""

    line: str
    stays: bool


class Replaying:
    """Sends letters of `topic`. Raises ConfigError when the contracts cannot be used, and the registry's errors."""

    def __init__(self, settings: Settings, topic: Topic, *, dry: bool) -> None:
        self.sent = self.stays = 0
        self._topic = topic
        self._workbench = Workbench(settings, dry=dry)
        self._replay = Replay(settings, self._workbench.destinations)
        self._replays = Replays(self._workbench.encoding, tombstones=settings.outbox.tombstones)

    def begin(self) -> None:
        """End every other replay."""
        self._replay.begin()

    def close(self) -> None:
        """Leave; what is not committed is taken back."""
        self._replay.close()
        self._workbench.close()

    def dry_run(self, entries: Iterable[Entry]) -> Iterator[Told]:
        """Say what would become of each letter."""
        for batch in _batches(entries):
            for entry, record in self._records(batch, now()):
                if isinstance(record, CdcError):
                    yield self._stays(entry, record)
                else:
                    self.sent += 1
                    size = len(record.value or b"")
                    yield Told(f"would send {_name(entry)} to {record.topic} ({size} bytes)", stays=False)

    def run(self, entries: Iterable[Entry]) -> Iterator[Told]:
        """Send the letters, and tell what stays. Raises KafkaUnavailable, and KafkaError when another has begun."""
        for batch in _batches(entries):
            at = now()
            sendings: list[tuple[Entry, Sending]] = []
            for entry, record in self._records(batch, at):
                if isinstance(record, CdcError):
                    yield self._stays(entry, record)
                else:
                    told = marker(self._topic.name, entry, at, time.time_ns() // 1_000_000)
                    sendings.append((entry, Sending(record, told, entry.partition)))
            refused = self._replay.send([sending for _, sending in sendings])
            for place, (entry, _) in enumerate(sendings):
                if place in refused:
                    yield self._stays(entry, refused[place])
                else:
                    self.sent += 1
                    yield Told("", stays=False)

    def _stays(self, entry: Entry, error: CdcError) -> Told:
        self.stays += 1
        reason = error.reason if isinstance(error, PoisonEvent) else str(error)
        return Told(f"stays: {_name(entry)}: {plain(reason)}", stays=True)

    def _records(self, batch: list[Entry], at: str) -> Iterator[tuple[Entry, Record | CdcError]]:
        """The record of each letter, or why there is none."""
        found = self._topic.fetch(batch)
        for entry in batch:
            letter = found.get(entry.position)
            if letter is None:
                yield entry, CdcError("it is not in the topic any more")
                continue
            try:
                yield entry, self._workbench.made(letter.type, partial(self._replays.record, letter, at))
            except Temporary:
                raise
            except CdcError as error:
                yield entry, error


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == _BATCH or size + entry.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch


def _name(entry: Entry) -> str:
    return f"{plain(entry.id) or '(no id)'} at {entry.position}"

"""The source of a recovery: missing events, made again from their rows, with positions before all that streams."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from cdc.app.outbox import outbox_of
from cdc.config.settings import Settings
from cdc.dead_letters.producer import Outgoing
from cdc.dead_letters.record_maker import RecordMaker, RecordTooLarge, wait_for
from cdc.delivery.sequence import Sequences
from cdc.errors import CdcError, PoisonEvent
from cdc.kafka.readback.tails import Tails
from cdc.logs.format import plain
from cdc.lsn import LSN
from cdc.outbox.events import Event
from cdc.quantities import moment
from cdc.records.dead_letters import DeadLetters
from cdc.records.headers import COMMITTED, POSITION, RECOVERED, SEQUENCE, Position
from cdc.records.record import Record
from cdc.recovery.candidates import Candidates, Payload
from cdc.recovery.missing import MissingEvent
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row

_NUMBER_SECONDS: Final = 300.0  # for reading a topic back to its last numbers


def _ignore(error: object, message: object) -> None:
    """The producer has a report of its own."""


class MissingRows:
    """The missing events of `candidates`: all of them have the commit LSN `at`, and a running index.

    A poison event becomes a dead letter, or ends the run, as the settings say.
    """

    whole = True  # a later event of its key must not pass a refused one

    def __init__(self, settings: Settings, candidates: Candidates, stream: str, maker: RecordMaker) -> None:
        self.index = 0
        self.dead_lettered = 0
        self._candidates = candidates
        self._stream = stream
        self._maker = maker
        self._outbox = outbox_of(settings, stream, candidates.table.keys)
        self._encoding = maker.encoding(self._outbox)
        self._dead_letter_topic = settings.topics.dead_letter
        buries = settings.delivery.on_poison == "dead-letter"
        self._dead_letters = DeadLetters(settings.topics.dead_letter, self._outbox) if buries else None
        self._refused: dict[int, str] = {}  # why Kafka refused a record, by the number of its event
        self._ledger_at = LSN(0)
        self._tails = Tails(settings, stream, LSN(0), sequences=True) if settings.delivery.sequence else None
        self._sequences = Sequences(self._tails, maker.destinations.partitions) if self._tails else None
        if self._tails:
            self._tails.forget()  # of what the topics hold, the numbers matter

    def begin(self, at: LSN) -> None:
        """Start a round, whose events have this commit LSN."""
        self._ledger_at, self.index = at, 0
        if self._dead_letters:
            self._maker.destinations.largest(self._dead_letter_topic)  # learns how large a dead letter may be

    def close(self) -> None:
        """Close the connection to Kafka."""
        if self._tails:
            self._tails.close()

    def batches(self) -> Iterator[list[MissingEvent]]:
        """Yield the missing events in their order."""
        for batch in self._candidates.missing.portions():
            yield batch
            self.index += len(batch)
            self._refused.clear()

    def records(
        self,
        batch: list[MissingEvent],
        at: str,  # noqa: ARG002 - a Source has it
        *,
        numbered: bool = True,
    ) -> Iterator[tuple[MissingEvent, Record | CdcError]]:
        """Yield the record of each event. Raises PoisonEvent when one has none, and no dead letter is asked for.

        Without `numbered` they have no `cdc-sequence`: they are not sent.
        """
        payloads = self._candidates.table.payloads(batch)
        if self._sequences:
            self._sequences.begin()
        for index, event in enumerate(batch, self.index):
            record = (
                self._again(event, index)
                if event.sub
                else self._record(event, payloads[event.part, event.place], index)
            )
            yield event, self._numbered(record) if self._sequences and numbered else record

    def refuse(self, event: MissingEvent, error: CdcError) -> None:
        """Make a dead letter of an event that Kafka refused. Raises PoisonEvent if none is asked for."""
        reason = f"Kafka refuses its record: {error}"
        if self._dead_letters is None or event.sub or event.nth in self._refused:
            raise PoisonEvent(reason, position=f"row {event.nth}", event_id=event.id, kind="kafka-refused")
        self._refused[event.nth] = reason
        if self._sequences:
            self._sequences.back()

    def outgoing(self, event: MissingEvent, record: Record, at: str) -> Outgoing:  # noqa: ARG002 - a Source has them
        """Return the record alone."""
        return Outgoing(record)

    def name(self, event: MissingEvent) -> str:
        """Return the id."""
        return plain(event.id)

    def _record(self, missing: MissingEvent, payload: Payload, index: int) -> Record:
        now = time.time_ns() // 1_000_000
        committed = payload.committed or payload.age or now
        row = Row(Ledger().begin(self._ledger_at, committed), index, payload.relation, payload.data)
        event: Event | None = None
        try:
            event = self._outbox.event(row)
            if reason := self._refused.get(missing.nth):
                raise self._poison(row, event, "kafka-refused", reason)
            try:
                return self._maker.make(event.type, partial(self._marked, event, now))
            except RecordTooLarge as error:
                raise self._poison(row, event, "too-large", str(error)) from None
        except PoisonEvent as poison:
            if self._dead_letters is None:
                raise
            self.dead_lettered += 1
            letter = self._dead_letters.record(row, event, poison)
            return letter._replace(headers=[*letter.headers, (RECOVERED, "true")])

    def _again(self, event: MissingEvent, index: int) -> Record:
        """Return the record of an event without a row as Kafka has it, but with a position behind all others."""
        copy = self._candidates.missing.copy(event)
        position = str(Position(self._stream, self._ledger_at, index))
        headers = [(name, position if name == POSITION else value) for name, value in copy.headers if name != SEQUENCE]
        if POSITION not in dict(headers):
            headers.append((POSITION, position))
        record = Record.to(event.topic, event.key, copy.value, copy.timestamp, headers, _ignore)
        committed = None if self._outbox.time else copy.timestamp
        return self._timed(record, committed, time.time_ns() // 1_000_000)

    def _marked(self, event: Event, now: int) -> Record:
        """Return the record of an event."""
        return self._timed(self._encoding.record(event), event.row.transaction.timestamp, now)

    def _timed(self, record: Record, committed: int | None, now: int) -> Record:
        """Mark a record as recovered. Its time is its own, unless the topic would soon delete it.

        `committed` is the time of its commit, None where that is unknown.
        """
        known = dict(record.headers)
        headers = [*record.headers, *([] if RECOVERED in known else [(RECOVERED, "true")])]
        self._maker.destinations.largest(record.topic)  # learns of the topic
        kept = self._maker.destinations.keeps(record.topic)
        if kept is not None and now - record.timestamp >= kept / 2:
            if committed is not None and COMMITTED not in known:
                headers.append((COMMITTED, moment(committed / 1000)))
            record = record._replace(timestamp=now)
        return record._replace(headers=headers)

    def _numbered(self, record: Record) -> Record:
        assert self._sequences
        self._maker.destinations.largest(record.topic)
        number = partial(self._sequences.numbered, record)
        return wait_for(number, _NUMBER_SECONDS, f"topic {record.topic!r} could not be read back in time")

    def _poison(self, row: Row, event: Event, kind: str, reason: str) -> PoisonEvent:
        return PoisonEvent(reason, position=self._outbox.position(row), event_id=event.id, kind=kind)

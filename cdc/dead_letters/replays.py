"""Converts dead letters to the records of their events, encoded by the current contracts."""

from collections.abc import Callable
from typing import Final, Protocol

from cdc.errors import PoisonEvent
from cdc.lsn import LSN
from cdc.outbox.columns import Columns
from cdc.outbox.events import Event, Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.records.dead_letters import DeadLetter
from cdc.records.encoding import Encoding
from cdc.records.headers import ID, POSITION, REPLAYED, TYPE, Position
from cdc.records.record import Headers, Record
from cdc.replication.messages import Relation, TupleData
from cdc.replication.settlement import Ledger, Transaction
from cdc.replication.transactions import Row

_UNREADABLE: Final = "unreadable-row"
_NO_TABLE: Final = Relation(0, "", "", "", ())
_NO_CELLS: Final = TupleData(b"", [])


class Replays:
    """Makes the records of dead letters. `encoding` is the publisher's; `tombstones` is the setting of the outbox.

    With `times`, records have the time of a column, as `[record] timestamp` says; else that of the commit.
    """

    def __init__(self, encoding: Callable[[Outbox], Encoding], *, tombstones: bool, times: bool = False) -> None:
        self._make = encoding
        self._times = times
        self._tombstones = tombstones
        self._encodings: dict[str, Encoding] = {}  # by stream, which is a part of positions

    def record(self, letter: DeadLetter, at: str) -> Record:
        """Return the record of the letter's event, with the header `cdc-replayed`.

        Raises PoisonEvent when it still does not fit its contract, Pending while the schema's id is unknown.
        """
        position = Position.parse(letter.position)
        assert position, "only records with a position are read as dead letters"
        transaction = Transaction(Ledger(), LSN(position.commit_lsn), letter.timestamp)
        event = self._event(letter, Row(transaction, position.index, _NO_TABLE, _NO_CELLS))
        if position.stream not in self._encodings:
            outbox = Outbox(position.stream, Columns(), TopicTemplate("any"), tombstones=self._tombstones)
            self._encodings[position.stream] = self._make(outbox)
        try:
            record = self._encodings[position.stream].record(event)
        except PoisonEvent as poison:
            raise self._broken(letter) if poison.kind == _UNREADABLE else poison from None
        return record._replace(headers=[*record.headers, (REPLAYED, at)])

    def _event(self, letter: DeadLetter, row: Row) -> Event:
        payload = letter.payload
        if self._tombstones and (not payload or payload.isspace()):
            payload = None
        headers = [(name, text) for name, text in letter.headers if text is not None]
        complete = len(headers) == len(letter.headers)
        if letter.error == _UNREADABLE:
            # Empty parts were unreadable. All others are complete only when the defect was a null payload.
            complete &= payload is None and all((letter.id, letter.type, letter.topic, letter.aggregate))
            complete &= letter.key is not None
        if not complete:
            raise self._broken(letter)
        return Event(
            row,
            letter.id,
            letter.topic,
            letter.key,
            letter.type,
            letter.aggregate,
            payload,
            letter.payload_kind,
            headers,
            letter.time if self._times else None,
        )

    @staticmethod
    def _broken(letter: DeadLetter) -> PoisonEvent:
        reason = f"the row itself is broken: {letter.message}"
        return PoisonEvent(reason, position=letter.position, event_id=letter.id, kind=_UNREADABLE)


class Marked(Protocol):
    """The parts of a dead letter that its marker repeats."""

    @property
    def id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def position(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...


def marker(topic: str, letter: Marked, at: str, timestamp: int) -> Record:
    """Return the record that marks a letter as replayed in the dead-letter topic."""
    headers: Headers = [
        (ID, letter.id),
        (TYPE, letter.type),
        (POSITION, letter.position),
        (REPLAYED, at),
    ]
    return Record.to(topic, letter.key, None, timestamp, headers, _unheard)


def _unheard(error: object, message: object) -> None:
    """Ignore the delivery of one record: the end of the transaction reports all."""

"""Runs an audit: reads the table, then the events that the slot has not confirmed, then the topics, and judges.

This order makes it exact: an event in the snapshot, but not in the copy of the slot that is created after it, was in
Kafka before the topics are read.
"""

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeVar

from cdc.audit import in_flight
from cdc.audit.books import Books
from cdc.audit.in_flight import Copy
from cdc.audit.judging import AuditFacts, Judgement, Note
from cdc.audit.range import Range
from cdc.audit.reading import RecordReader
from cdc.audit.records import TopicRecords
from cdc.audit.table import NoTable, OutboxTable
from cdc.audit.topics import TopicReader, choose
from cdc.audit.unconfirmed import DELETED, STRAYS, UnconfirmedRows
from cdc.audit.verdicts import FINDINGS, TopicRecord
from cdc.config.settings import Settings
from cdc.errors import CdcError, KafkaError
from cdc.kafka import positions
from cdc.lsn import LSN
from cdc.outbox.events import Outbox
from cdc.postgres import catalog, publication, slots
from cdc.postgres.connection import Conn, connect
from cdc.postgres.renamed import located
from cdc.records.headers import stream_id
from cdc.replication.publication import counted

T = TypeVar("T")

CONFIRM_SECONDS: Final = 30.0
"""How long to wait for the slot where it cannot be copied."""

_SKEW_MS: Final = 3_600_000  # rows that were written by another clock may be older than their commit
_STEP: Final = 5000


@dataclass(frozen=True)
class AuditStep:
    """The progress of one step; `total` is None when it is unknown."""

    name: str
    total: int | None
    done: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of an audit."""

    wanted: Range
    topics: frozenset[str] = frozenset()
    streams: tuple[str, ...] = ()  # further streams of the publisher
    age: str | None = None
    sparse: bool = False


class Auditing:
    """One audit. `books` has the findings when `run` has ended."""

    def __init__(self, settings: Settings, asked: Asked, connection: Conn) -> None:
        self._relay = UnconfirmedRows(connection, settings) if settings.postgres.polls else None
        if self._relay is None:
            catalog.server(connection)
        settings = located(connection, settings)
        self.notes: list[Note] = []
        self.counts: dict[str, int] = {}
        self.table: OutboxTable | NoTable
        if catalog.without_table(connection, settings):
            self.table = NoTable(connection, settings)
        else:
            self.table = OutboxTable(connection, settings, asked.age)
        if settings.outbox.messages is not None:
            self.notes.append(Note("records", 0, _MESSAGES))
        self.topics = TopicReader(settings, aged=self.table.tells_times)
        self.books = Books()
        self.names: list[str] = []  # of the topics that were read
        self.destinations: list[str] = []  # of all topics, also of those that do not exist
        self.stream = ""  # of today
        self._settings = settings
        if self._deletes:
            self.notes.append(Note("records", 0, DELETED))
        self._asked = asked
        self._connection = connection
        self._commit_times = settings.record.time_column is None
        self._wanted = replace(asked.wanted, numeric=self.table.numeric, by_row=not self._commit_times)
        self._reading = RecordReader((), self._wanted)
        self._in_topics = self._records_of(self._reading)
        self._template_tells = True

    def close(self) -> None:
        """Close the connection to Kafka, and delete the books."""
        self.topics.close()
        self.books.close()

    def run(self) -> Iterator[AuditStep]:
        """Read and judge. Raises CdcError."""
        rows = 0
        with self.table.snapshot() if self._relay is None else self._relay.snapshot() as horizon:
            for portion in _portions(self.table.rows(self._wanted, self._asked.topics)):
                self.books.add_rows(portion)
                rows += len(portion)
                yield AuditStep("rows", None, rows)
            if self._relay is None:
                settled, confirmed, timeline = yield from self._in_flight(horizon)
            else:
                settled, confirmed, timeline = True, None, (yield from self._unconfirmed(self._relay))
        chosen = self._choose()
        self.destinations = list(chosen)
        self.names = [name for name, exists in chosen.items() if exists]
        yield from self._records(self.names)
        if self._wanted.by_row and self._wanted.by_time:
            self.books.judge_by_rows()
        facts = self._facts(horizon, confirmed, timeline, settled=settled)
        judgement = Judgement(self.books, facts)
        for number, step in enumerate(judgement.run()):
            yield AuditStep(f"judging {step}", 6, number)
        self.counts = {
            "rows": rows,
            "records": self._in_topics.count,
            **{name: judgement.counts[name] for name in ("delivered", "in_flight", "dead_lettered", "purged", "newer")},
            "expired": judgement.counts["expired"],
            "undecided": judgement.counts["undecided"],
            "foreign": sum(self._reading.others.values()),
            **{kind: self.books.counts().get(kind, 0) for kind in FINDINGS},
        }
        self.notes += judgement.notes
        self._note_foreign()

    def _in_flight(self, horizon: LSN) -> Generator[AuditStep, None, tuple[bool, LSN | None, int]]:
        """Return whether all events in flight are known, the slot's confirmed LSN, and the timeline."""
        slot = self._settings.postgres.slot
        self._note_recovery(slot)
        system_identifier, timeline = slots.system_identifier(self._connection), slots.timeline(self._connection)
        confirmed: LSN | None = None
        settled = True
        if lost := in_flight.lost(self._connection, slot):
            self.notes.append(Note("rows", 0, f"{lost}: events that are not in Kafka now will not be sent from it"))
        else:
            try:
                with contextlib.closing(Copy(self._settings, self._oids())) as copy:
                    system_identifier, timeline = copy.identify()
                    confirmed, found = copy.confirmed, 0
                    outbox = Outbox(slot, self._settings.outbox.parts, self._settings.template)
                    for portion in _portions(copy.ids(outbox)):
                        self.books.add_in_flight(portion)
                        found += len(portion)
                        yield AuditStep("rows in flight", None, found)
            except CdcError as error:
                self.books.forget_in_flight()  # events that were read so far may be confirmed meanwhile
                with connect(self._settings.postgres.dsn) as connection:
                    confirmed = in_flight.passes(connection, slot, horizon, CONFIRM_SECONDS)
                settled = confirmed is not None and confirmed >= horizon
                self.notes.append(
                    Note("rows", 0, f"slot {slot!r} could not be copied ({error.message}); {_TRUST[settled]}")
                )
        streams = [stream_id(system_identifier, number, slot) for number in range(1, timeline + 1)]
        return settled, confirmed, self._read_streams(streams)

    def _unconfirmed(self, relay: UnconfirmedRows) -> Generator[AuditStep, None, int]:
        """Read the rows that a relay has not confirmed; return the number of its stream."""
        found = 0
        for portion in _portions(relay.ids()):
            self.books.add_in_flight(portion)
            found += len(portion)
            yield AuditStep("rows in flight", None, found)
        if strays := relay.strays():
            self.notes.append(Note("rows", strays, STRAYS))
        return self._read_streams([stream_id(relay.relay.id, 1, relay.relay.name)])

    def _read_streams(self, streams: list[str]) -> int:
        """Read records of these streams, and of those that the user names; return the number of the last one."""
        self.stream = streams[-1]
        # Streams that the user names are older than all.
        others = [stream for stream in self._asked.streams if stream not in streams]
        self._reading = RecordReader([*others, *streams], self._wanted)
        self._in_topics = self._records_of(self._reading)
        return len(others) + len(streams)

    @property
    def _deletes(self) -> bool:
        """Whether rows go as soon as they are published."""
        return self._relay is not None and self._settings.outbox.published == "delete"

    def _note_recovery(self, slot: str) -> None:
        key = f"{slots.system_identifier(self._connection)}/{slot}"
        try:
            begun = positions.remembered(self._settings, key).recovery
        except KafkaError:
            return  # an audit needs no right to read that topic
        if begun:
            self.notes.append(Note("rows", 0, str(begun.unfinished())))

    def _records_of(self, reading: RecordReader) -> TopicRecords:
        dead_letter = self._settings.topics.dead_letter
        return TopicRecords(self.topics, self.books, reading, dead_letter, self._wanted, self._asked.topics)

    def _oids(self) -> frozenset[int]:
        settings = self._settings
        name, table = settings.postgres.publication, settings.outbox.qualified_name
        return counted(publication.read(self._connection, name, table))

    def everywhere(self) -> set[str]:
        """Return all topics that may have events, also those that the audit was not asked about."""
        existing = self.topics.existing()
        return {*self._chosen(existing, frozenset()), *self.destinations} & existing

    def _choose(self) -> Mapping[str, bool]:
        self._template_tells = self._settings.template.tells
        if not self._template_tells and not self._asked.topics:
            why = "[topics] name has no text beside its columns, so that topics without a row are not searched for"
            self.notes.append(Note("topics", 0, why))
        return self._chosen(self.topics.existing(), self._asked.topics)

    def _chosen(self, existing: set[str], only: frozenset[str]) -> Mapping[str, bool]:
        own = self._settings.topics.dead_letter, self._settings.topics.positions
        return choose(existing, self.books.topics(), self._settings.template, own, only)

    def _records(self, names: list[str]) -> Iterator[AuditStep]:
        dead_letter = self._settings.topics.dead_letter
        since = self._wanted.since
        if dead_letter in self.topics.existing():
            self.topics.look([dead_letter])
        begin = None if since is None else since - _SKEW_MS
        total = self.topics.look(names, begin)
        yield AuditStep("records", total, 0)
        yield from self._into_books(total)
        # A cleaner may have removed records, before they were read, for the sake of one behind the end.
        compacted = [name for name in names if self.topics.kept(name, 0).compacted]
        yield from self._into_books(self.topics.look(compacted, begin))

    def _into_books(self, total: int) -> Iterator[AuditStep]:
        for done, records in self.read():
            self.books.add_records(records)
            yield AuditStep("records", total, done)

    def read(self) -> Iterator[tuple[int, list[TopicRecord]]]:
        """Yield the records of the topics, up to the ends that were found; add dead letters to the books."""
        return self._in_topics.read()

    def _facts(self, horizon: LSN, confirmed: LSN | None, timeline: int, *, settled: bool) -> AuditFacts:
        now = int(time.time() * 1000)
        trimmed: set[tuple[str, int]] = set()
        begins: set[tuple[str, int]] = set()
        looked_at = {*self.names, self._settings.topics.dead_letter}
        for name in looked_at:
            for number, low in self.topics.lows(name).items():
                (trimmed if low else begins).add((name, number))
        unseen = in_flight.waits_for_standbys(self._connection)
        if unseen:
            self.notes.append(Note("records", 0, "transactions wait for a standby: their rows are not visible yet"))
        return AuditFacts(
            stream=timeline,
            horizon=horizon,
            wal_end=in_flight.wal_end(self._connection) if self._relay is None else self._relay.end(),
            confirmed=confirmed,
            wanted=self._wanted,
            position=self._reading.position,
            present=self.table.present,
            began=self.table.tells_beginning,
            deleted=self.table.deleted,
            gone=self.table.gone,
            kept={name: self.topics.kept(name, now) for name in self.names},
            trimmed=frozenset(trimmed),
            begins=frozenset(begins),
            settled=settled,
            sparse=self._asked.sparse or unseen or self._deletes or self._settings.outbox.messages is not None,
            passed_by="the slot" if self._relay is None else "the relay",
            every_topic=self._template_tells and not self._asked.topics,
            commit_times=self._commit_times,
        )

    def _note_foreign(self) -> None:
        others = self._reading.others
        streams = ", ".join(f"{stream} ({count})" for stream, count in others.most_common(3) if stream)
        if streams:
            why = (
                f"they are of other streams: {streams}; only their ids count;"
                " name the stream of an earlier slot with --stream"
            )
            self.notes.append(Note("records", sum(others.values()) - others[""], why))


_MESSAGES: Final = (
    "events that are messages have no row: they are judged by their positions and sequence numbers only, and one that"
    " is missing is not found"
)
_TRUST: Final = {
    True: "instead, the audit waited until the slot had confirmed all rows of the table",
    False: "and the slot has not confirmed all rows of the table yet",
}


def _portions(items: Iterator[T]) -> Iterator[list[T]]:
    while portion := list(islice(items, _STEP)):
        yield portion

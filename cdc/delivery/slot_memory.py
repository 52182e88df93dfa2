"""Compares what is there with what the publisher left, and finds out which part of its stream was sent before.

All that is remembered between runs is compared here, when a session begins: server, slot, publication, table, settings,
the Kafka cluster, and its topics.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from cdc.config.settings import Settings
from cdc.delivery.deduplication import NOTHING, NOWHERE, SentBefore
from cdc.delivery.ports import Ends, Foreign
from cdc.delivery.positions import (
    AT_LEAST_ONCE,
    EXACTLY_ONCE,
    ForeignWindow,
    Memory,
    RememberedTopic,
    SlotRecord,
    before,
    counts_otherwise,
    differences,
    reached,
    recreated,
)
from cdc.delivery.reports import Batch
from cdc.errors import PostgresError, PostgresUnavailable
from cdc.lsn import LSN
from cdc.polling.progress import Progress
from cdc.replication import publication
from cdc.replication.horizon import Horizon, counting

log = logging.getLogger(__name__)

BATCH_EVENTS: Final = 50_000
BATCH_BYTES: Final = 16_777_216
"""A Kafka transaction ends when it holds so much, or after `transaction_ms`, whichever comes first."""

_NAMED: Final = 5  # missing topics that are named


SET_BACK: Final = (
    "to continue without skipping new events, give [postgres] slot a new name, and run: cdc-publisher slot create;"
    " then run audit to list missing events"
)


def claim(found: SlotRecord, known: Memory, guarantee: str) -> SlotRecord | None:
    """Return the record to write before a slot is read for the first time; None when there is one.

    Without it, a first session that dies before its first record would leave a slot that was read from, and
    no record of the reader.
    """
    return None if known.record is not None else replace(found, guarantee=guarantee, horizons=known.horizons)


def resumable(record: SlotRecord | None, guarantee: str, has_tick: Callable[[int, int], bool]) -> Progress | None:
    """Return how far Kafka says that a relay has sent rows; None where the table has to say it.

    It holds where the table has the tick, by its number and transaction: else the table was set back behind it. It
    holds also while rows behind it may have been sent before, and are compared by their ids.
    """
    if record is None or {record.guarantee, guarantee} != {EXACTLY_ONCE}:
        return None
    progress = record.relay.progress if record.relay else None
    return progress if progress and progress.tick and has_tick(progress.tick, progress.xid) else None


class Present(Protocol):
    """Slot, server and topics as they are now; see `cdc.delivery.ports.Ends`."""

    @property
    def slot(self) -> SlotRecord: ...
    @property
    def used(self) -> bool: ...
    @property
    def timelines(self) -> Mapping[int, LSN]: ...
    @property
    def wal_end(self) -> LSN: ...
    @property
    def identities(self) -> Callable[[Collection[str]], Mapping[str, RememberedTopic]]: ...


class Topics(NamedTuple):
    """The remembered topics, compared with those that are there."""

    remembered: Mapping[str, RememberedTopic]
    changes: Mapping[str, str]  # a sentence for each that was deleted and created again
    missing: list[str]

    @property
    def loss(self) -> str:
        """What it means that some are missing; empty when none is."""
        named = ", ".join(self.missing[:_NAMED])
        number = len(self.missing)
        return f"{number} topics do not exist any more, and the events in them are lost: {named}" if number else ""


def changed(settings: Settings, present: Present, record: SlotRecord | None, memory: Memory | None) -> list[str]:
    """Return a sentence for each change of the slot, and of what its stream depends on, but for topics.

    `record` is what is remembered of the slot, and `memory` what Kafka holds of it, as far as it was asked.
    """
    found, exactly_once = present.slot, settings.delivery.guarantee == EXACTLY_ONCE
    changes = differences(found, record) if record else []
    lost = memory is not None and memory.record is None and not memory.forgotten
    if lost and present.used and (exactly_once or not record):
        changes.append(
            f"topic {settings.topics.positions!r} holds no position of replication slot {found.slot!r},"
            " although that was read from before: the topic was deleted, Kafka is another cluster, or another"
            " program such as Debezium reads the slot (then run: cdc-publisher takeover run)"
        )
    if record and exactly_once and record.position and reached(record, found.timeline, present.timelines) is None:
        changes.append(
            f"PostgreSQL is on timeline {found.timeline}, and does not know where timeline {record.timeline} ended,"
            f" so it is unknown which events up to {record.position} it still has: put {found.timeline:08X}.history"
            " back into pg_wal, from the archive or from another server, and start again; or continue, and all"
            " events since the slot's position are sent again"
        )
    return changes


def topics_now(present: Present, record: SlotRecord | None, memory: Memory) -> Topics:
    """Compare the remembered topics with those that are there; of another cluster none is remembered."""
    swapped = record is not None and bool(record.cluster) and present.slot.cluster != record.cluster
    remembered = {} if swapped else memory.topics
    there = present.identities(remembered) if remembered else {}
    return Topics(remembered, recreated(there, remembered), sorted(remembered.keys() - there.keys()))


def set_back(present: Present, record: SlotRecord | None) -> str:
    """Return what shows that the server was set back: positions that it issues again would pass for old ones."""
    if not record or record.timeline != present.slot.timeline or record.confirmed <= present.wal_end:
        return ""
    return (
        f"PostgreSQL was set back: its WAL ends at {present.wal_end}, and replication slot {record.slot!r} had been"
        f" moved to {record.confirmed}"
    )


class Recognition:
    """The slot as this process knows it, from session to session.

    `accept_changes` lets the first session continue although something was changed, and later ones despite the same
    changes until Kafka has a new record.
    """

    def __init__(self, settings: Settings, *, accept_changes: bool = False) -> None:
        self._settings = settings
        self._accept_changes = accept_changes
        self._accepted: set[str] = set()  # changes, while Kafka has the record from before them
        self._record: SlotRecord | None = None
        self._horizons: tuple[Horizon, ...] = ()
        self._beyond_end: LSN | None = None  # what the last session found beyond the end of the WAL
        self._compared = False  # the topics, which are monitored from then on

    def keep(self, record: SlotRecord) -> None:
        """Remember what the session that ended has left."""
        self._record, self._horizons = record, record.horizons

    @property
    def batch(self) -> Batch | None:
        """How much a Kafka transaction takes; None without such."""
        delivery = self._settings.delivery
        if delivery.guarantee == AT_LEAST_ONCE:
            return None
        return Batch(BATCH_EVENTS, BATCH_BYTES, delivery.transaction_ms / 1000)

    def sent_before(self, ends: Ends, known: SlotRecord | None) -> tuple[SentBefore, SlotRecord]:
        """What of the stream was sent before, and the record to begin with; `known` is what `recognise` returned."""
        position = reached(known, ends.slot.timeline, ends.timelines) if known else None
        caught_up = known is not None and known.caught_up and self.batch is not None
        if ends.progress is not None:
            caught_up = caught_up and ends.resumes
        renumbered = known.renumbered if known and known.renumbered and ends.slot.confirmed < known.renumbered else None
        if known and counts_otherwise(ends.slot, known):
            # Events may have other numbers in a transaction than they had: the last one is redelivered, and compared
            # with what Kafka has, by ids.
            position, caught_up = position and before(position.commit_lsn), False
            renumbered = ends.wal_end
        guarantee = self._settings.delivery.guarantee
        horizons = counting(self._horizons, ends.slot.timeline, ends.timelines, ends.wal_end)
        window = known.foreign if known and known.foreign and ends.slot.confirmed < known.foreign.until else None
        if ends.progress is not None and known:
            if window:
                window = window._replace(until=ends.wal_end)
            elif known.since is not None and not ends.slot.confirmed:
                window = ForeignWindow(
                    ends.wal_end, known.since, own=True
                )  # rows that a slot has sent, or the relay of before
        record = replace(
            ends.slot,
            position=position,
            guarantee=guarantee,
            caught_up=caught_up,
            horizons=horizons,
            recovered=known.recovered if known else None,
            foreign=window,
            renumbered=renumbered,
            since=known.since if known else None,
        )
        if caught_up:
            # Events beyond the position were never committed; without a position, none was.
            return (SentBefore(LSN(position.commit_lsn + 1), position) if position else SentBefore()), record
        if known and known.guarantee == EXACTLY_ONCE and not self.batch:
            ends.hand_over(record)
        if ends.progress is not None and not (ends.used or known):
            return SentBefore(), record
        dead_letters = self._settings.topics.dead_letter if ends.dead_letters else None
        foreign: tuple[Foreign | None, LSN] = (ends.foreign(window), window.until) if window else (None, NOTHING)
        if ends.progress is not None:
            return SentBefore(ends.wal_end, NOWHERE, ends.tails, dead_letters, *foreign, anywhere=True), record
        by_id = renumbered is not None
        return SentBefore(ends.wal_end, position or NOWHERE, ends.tails, dead_letters, *foreign, by_id=by_id), record

    def recognise(self, ends: Ends) -> SlotRecord | None:
        """Return the remembered record of the slot.

        Raises PostgresError when it, or anything that the stream depends on, is not as the publisher left it.
        """
        found, memory = ends.slot, None
        # What became of the last Kafka transaction is only known from there.
        known = self._record if self._compared else None
        if self.batch or known is None or known.key != found.key or differences(found, known):
            memory = ends.remembered()  # another process may have moved the slot
            self._record = memory.record or self._record
            self._horizons = memory.horizons
        self._check_server(ends)
        changes = changed(self._settings, ends, self._record, memory)
        if memory and not self._compared:
            changes += self._topics(ends, memory)
        if self._accept_changes or not changes:
            self._accepted = set(changes)
        if not self._accepted.issuperset(changes):
            raise PostgresError(
                f"not as the publisher left it: {'; '.join(changes)}",
                hint=publication.GO_ON,
            )
        if changes:
            log.warning("continuing despite changes: %s", "; ".join(changes), extra={"event": "changes_accepted"})
        elif self._record and self._record.timeline != found.timeline:
            log.warning(
                "PostgreSQL is on another timeline: a standby was promoted, or a backup was restored",
                extra={
                    "event": "timeline_changed",
                    "timeline": found.timeline,
                    "before": self._record.timeline,
                    "confirmed": str(found.confirmed),
                },
            )
        self._accept_changes = False
        return self._record

    def _topics(self, ends: Ends, memory: Memory) -> list[str]:
        """Compare the remembered topics with those that are there; trust those that are the same, or accepted."""
        found = topics_now(ends, self._record, memory)
        if found.missing:
            log.warning("%s", found.loss, extra={"event": "topics_missing"})
        forgotten = {*found.changes, *found.missing} if self._accept_changes else set[str]()
        ends.trust({topic: record for topic, record in found.remembered.items() if topic not in forgotten})
        self._compared = True
        return list(found.changes.values())

    def _check_server(self, ends: Ends) -> None:
        """Raise PostgresError when the server was set back, PostgresUnavailable when it may have been.

        At least once compares positions and ids with what the topics hold, and loses nothing by that.
        """
        problem = set_back(ends, self._record)
        if problem and self._record and self.batch:
            # Or this process stood still after it had opened the session, and another one moved the slot meanwhile.
            if self._record.confirmed != self._beyond_end:
                self._beyond_end = self._record.confirmed
                raise PostgresUnavailable(f"{problem}; comparing again in a new session")
            raise PostgresError(problem, hint=SET_BACK)
        if problem:
            log.warning("comparing positions together with ids: %s", problem, extra={"event": "comparing_ids"})

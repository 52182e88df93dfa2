"""Compares what is there with what the publisher left, and finds out which part of its stream was sent before.

All that is remembered between runs is compared here, when a session begins: server, slot, publication, table, settings,
the Kafka cluster, and its topics.
"""

import logging
from dataclasses import replace
from typing import Final

from cdc.config.settings import Settings
from cdc.delivery.deduplication import NOTHING, NOWHERE, SentBefore
from cdc.delivery.ports import Ends
from cdc.delivery.positions import (
    AT_LEAST_ONCE,
    EXACTLY_ONCE,
    Memory,
    SlotRecord,
    before,
    differences,
    reached,
    recreated,
)
from cdc.delivery.reports import Batch
from cdc.errors import PostgresError
from cdc.lsn import LSN
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


def claim(found: SlotRecord, known: Memory, guarantee: str, *, used: bool) -> SlotRecord | None:
    """Return the record to write before a slot is read for the first time; None when that is not to come.

    Without it, a first session that dies before its first record would leave a slot that was read from, and
    no record of the reader.
    """
    if used or known.record is not None:
        return None
    return replace(found, guarantee=guarantee, horizons=known.horizons)


def _swapped(found: SlotRecord, remembered: SlotRecord) -> bool:
    return bool(remembered.cluster) and found.cluster != remembered.cluster


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
        if known and position and publication.differences(ends.slot.definition, known.definition):
            # Other tables are the outbox's now, so its rows may have other numbers in a transaction than they had:
            # the last one is redelivered, and compared with what Kafka has.
            position, caught_up = before(position.commit_lsn), False
        guarantee = self._settings.delivery.guarantee
        horizons = counting(self._horizons, ends.slot.timeline, ends.timelines, ends.wal_end)
        window = known.foreign if known and known.foreign and ends.slot.confirmed < known.foreign.until else None
        record = replace(
            ends.slot,
            position=position,
            guarantee=guarantee,
            caught_up=caught_up,
            horizons=horizons,
            recovered=known.recovered if known else None,
            foreign=window,
        )
        if caught_up:
            # Events beyond the position were never committed; without a position, none was.
            return (SentBefore(LSN(position.commit_lsn + 1), position) if position else SentBefore()), record
        if known and known.guarantee == EXACTLY_ONCE and not self.batch:
            ends.hand_over(record)
        dead_letters = self._settings.topics.dead_letter if ends.dead_letters else None
        foreign = (ends.foreign(window), window.until) if window else (None, NOTHING)
        return SentBefore(ends.wal_end, position or NOWHERE, ends.tails, dead_letters, *foreign), record

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
        changes = differences(found, self._record) if self._record else []
        changes += self._unknown(ends, memory)
        if memory and not self._compared:
            changes += self._topics(ends, memory, swapped=bool(self._record and _swapped(found, self._record)))
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

    def _unknown(self, ends: Ends, memory: Memory | None) -> list[str]:
        """Return a sentence for what cannot be compared, although it must be."""
        found, record = ends.slot, self._record
        lost = memory is not None and memory.record is None and not memory.forgotten
        if lost and ends.used and (self.batch or not record):
            return [
                f"topic {self._settings.topics.positions!r} holds no position of replication slot {found.slot!r},"
                " although that was read from before: the topic was deleted, Kafka is another cluster, or another"
                " program such as Debezium reads the slot (then run: cdc-publisher takeover run)"
            ]
        if record and self.batch and record.position and reached(record, found.timeline, ends.timelines) is None:
            return [
                f"PostgreSQL is on timeline {found.timeline}, and does not know where timeline {record.timeline} ended,"
                f" so it is unknown which events up to {record.position} it still has: put {found.timeline:08X}.history"
                " back into pg_wal, from the archive or from another server, and start again; or continue, and all"
                " events since the slot's position are sent again"
            ]
        return []

    def _topics(self, ends: Ends, memory: Memory, *, swapped: bool) -> list[str]:
        """Compare the remembered topics with those that are there; trust those that are the same, or accepted."""
        remembered = {} if swapped else memory.topics
        there = ends.identities(remembered) if remembered else {}
        changes = recreated(there, remembered)
        missing = sorted(remembered.keys() - there.keys())
        if missing:
            log.warning(
                "%d topics do not exist any more, and the events in them are lost: %s",
                *(len(missing), ", ".join(missing[:_NAMED])),
                extra={"event": "topics_missing"},
            )
        forgotten = {*changes, *missing} if self._accept_changes else set[str]()
        ends.trust({topic: record for topic, record in remembered.items() if topic not in forgotten})
        self._compared = True
        return list(changes.values())

    def _check_server(self, ends: Ends) -> None:
        """Raise PostgresError when the server was set back: positions that it issues again would pass for old ones.

        At least once compares positions and ids with what the topics hold, and loses nothing by that.
        """
        record = self._record
        if not record or record.timeline != ends.slot.timeline or record.confirmed <= ends.wal_end:
            return
        problem = (
            f"PostgreSQL was set back: its WAL ends at {ends.wal_end}, and replication slot {record.slot!r} had been"
            f" moved to {record.confirmed}"
        )
        if self.batch:
            raise PostgresError(problem, hint=SET_BACK)
        log.warning("comparing positions together with ids: %s", problem, extra={"event": "comparing_ids"})

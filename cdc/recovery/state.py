"""Reads the state before a recovery: slot, record, bound and order; refuses to begin if an operator must decide."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cdc.app.connections import ordering
from cdc.audit.table import OutboxTable
from cdc.config.settings import Settings
from cdc.delivery.positions import Memory, RememberedTopic, SlotRecord, differences, recreated
from cdc.delivery.recovery_record import RecoveryRecord
from cdc.errors import KafkaError, PostgresError, Temporary
from cdc.kafka import positions
from cdc.kafka.cluster import Cluster
from cdc.kafka.remembered_topics import existing
from cdc.lsn import LSN
from cdc.postgres import catalog, publication, slot_health, slots
from cdc.postgres.connection import Conn, query
from cdc.postgres.source import Source
from cdc.records.headers import stream_id
from cdc.recovery import bound as bounds
from cdc.recovery.bound import BEGINNING, Bound, BoundFacts
from cdc.recovery.new_slot import RECOVER

_GIVE_SINCE: Final = "say from when on rows may be unpublished: cdc-publisher recover --since TIME"


class NothingToRecover(PostgresError):
    """The slot is healthy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOptions:
    """The options of a recovery; `since` is in milliseconds since 1970, `wait` in seconds, `rate` in events a second.

    `backfill`: a new slot is made for rows that were never published, all of them or those since a time.
    """

    since: int | None = None
    wait: float = 300.0
    rate: float | None = None
    backfill: bool = False
    failover: bool = False
    automatic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundState:
    """The slot and its record. `lost` says why the slot cannot be read; `finished` what an earlier call did."""

    mark: SlotRecord  # as of now; its confirmed LSN is the remembered one
    memory: Memory
    timelines: Mapping[int, LSN]
    health: slot_health.Health | None
    lost: str
    failover: bool
    finished: Mapping[str, Any] | None = None
    recreated: Mapping[str, RememberedTopic] = field(default_factory=dict)  # topics that were deleted and created again

    @property
    def key(self) -> str:
        """The key of the slot's record."""
        return self.mark.key

    @property
    def streams(self) -> list[str]:
        """The streams of the slot on all timelines; the last one is that of today."""
        mark = self.mark
        return [stream_id(mark.system_identifier, number, mark.slot) for number in range(1, mark.timeline + 1)]

    @property
    def begun(self) -> RecoveryRecord | None:
        """The record of a recovery that has not ended."""
        return self.memory.recovery


def lock(connection: Conn, slot: str) -> None:
    """Take the advisory lock of the slot's name, for as long as the connection lives. Raises Temporary."""
    number = int.from_bytes(hashlib.sha256(f"cdc-publisher recover {slot}".encode()).digest()[:8], signed=True)
    ((taken,),) = query(connection, "taking the lock", "select pg_try_advisory_lock(%s)", number)
    if not taken:
        raise Temporary(f"another recovery of replication slot {slot!r} is running", hint="wait for its end")


def find(connection: Conn, settings: Settings, options: RecoveryOptions) -> FoundState:
    """Read the state of slot, table and record. Raises CdcError when there is nothing to recover, or it may not be."""
    name, table = settings.postgres.slot, settings.outbox.qualified_name
    catalog.server(connection)
    catalog.require_table(connection, settings)
    if defect := catalog.role_defect(connection) or (
        catalog.publication_defect(connection, settings.postgres.publication, table)
        or catalog.children_defect(connection, settings.postgres.publication, table, [])
    ):
        raise defect.error()
    with contextlib.closing(Source(settings.postgres.dsn, RECOVER)) as source:
        system_identifier, timeline = source.identify()
        timelines = source.timelines(timeline)
    positions.ensure(settings)
    definition = publication.read(connection, settings.postgres.publication, table)
    mark = SlotRecord(
        system_identifier,
        timeline,
        name,
        slots.wal_end(connection),
        definition,
        ordering(settings, *catalog.key_form(connection, settings)),
        guarantee=settings.delivery.guarantee,
        cluster=Cluster(settings.kafka).cluster_id(),
    )
    memory = positions.remembered(settings, mark.key)
    health = slot_health.read(connection, name)
    if health and (defect := slot_health.unfit(name, health, connection.info.server_version)):
        raise defect.error()
    lost = (slot_health.problem(name, health) or ("", ""))[0]
    begun = memory.recovery
    failover = begun.failover if begun else bool(health and health.failover)
    found = FoundState(
        mark=mark,
        memory=memory,
        timelines=timelines,
        health=health,
        lost=begun.old if begun else lost,
        failover=failover or options.failover,
    )
    if begun is None and health is not None and not lost:
        done = memory.record.recovered if memory.record else None
        if done and (done.get("backfill") or not options.backfill):
            return replace(found, finished=done)
        if options.backfill:
            raise PostgresError(
                f"replication slot {name!r} exists already", hint="drop it first, or give another name to the new one"
            )
        raise NothingToRecover(
            f"replication slot {name!r} is healthy: there is nothing to recover",
            hint="to look for missing events, run: cdc-publisher audit",
        )
    return replace(found, recreated=_compare(found, settings, options))


def _compare(found: FoundState, settings: Settings, options: RecoveryOptions) -> Mapping[str, RememberedTopic]:
    """Return the topics that were re-created.

    Raises an error when these are not asked for, or the settings are others than those of the slot's record.
    """
    record = found.memory.record
    if record is None:
        return {}
    changes = differences(replace(found.mark, confirmed=record.confirmed, definition={}), record)
    if found.mark.definition.get("table oid") != record.definition.get("table oid", found.mark.definition["table oid"]):
        changes.append(f"table {settings.outbox.table} was replaced by another of its name")
    if changes:
        raise PostgresError(
            f"not as the publisher left it: {'; '.join(changes)}",
            hint="restore the settings of before, and run the command again",
        )
    remembered = found.memory.topics
    now = existing(Cluster(settings.kafka), list(remembered)) if remembered else {}
    gone = recreated(now, remembered)
    if gone and options.since is None and not options.backfill and found.begun is None:
        raise KafkaError("; ".join(gone.values()), hint=f"to send again what the table still has, {_GIVE_SINCE}")
    return {topic: now[topic] for topic in gone}


def bound(
    connection: Conn,
    found: FoundState,
    options: RecoveryOptions,
    table: OutboxTable,
    last_commit: Callable[[int, LSN], float | None],
) -> Bound:
    """Return which rows may be unpublished. Raises PostgresError when only the user knows.

    `last_commit` reads from the topics when the last event of a stream (a timeline) up to an LSN was committed.
    """
    if found.begun is not None:
        return Bound.read(found.begun.bound)
    if options.since is not None:
        if table.age is None and not table.knows_commit_times:
            raise PostgresError(
                "the age of rows is unknown: the table has no column 'created_at', and track_commit_timestamp is off",
                hint="run the command without --since"
                if options.backfill
                else "publish missing events with: audit --repair",
            )
        return bounds.since(options.since / 1000)
    if options.backfill:
        return BEGINNING
    ((catalog_xmin,),) = query(
        connection,
        "reading the slot",
        "select (select catalog_xmin::text::int8 from pg_replication_slots where slot_name = %s)",
        found.mark.slot,
    )
    ((following, end),) = query(
        connection,
        "reading transaction ids",
        "select pg_snapshot_xmax(pg_current_snapshot())::text::int8, pg_current_wal_insert_lsn()::text",
    )
    facts = BoundFacts(
        horizons=found.memory.horizons,
        timeline=found.mark.timeline,
        timelines=found.timelines,
        wal_end=LSN.parse(end),
        next_xid=following,
        catalog_xmin=catalog_xmin,
        commits=table.knows_commit_times,
    )
    chosen, record = bounds.choose(facts), found.memory.record
    if chosen is None and facts.commits and record is not None and record.timeline == facts.timeline:
        chosen = bounds.choose(replace(facts, confirmed_commit=last_commit(record.timeline, record.confirmed)))
    if chosen is None:
        raise PostgresError(
            f"it is unknown how far the rows of {table.qualified} were published: the topic of positions has no horizon"
            f" of slot {found.mark.slot!r}",
            hint=_GIVE_SINCE,
        )
    return chosen

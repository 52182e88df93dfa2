"""Check the replication slot, the WAL that it retains, and what may invalidate it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from cdc.checks.finding import FAIL, Notes
from cdc.checks.postgres import defect_noted
from cdc.checks.postgres_facts import LongTransaction, OtherSlot, Prepared, ServerFacts, SlotReader
from cdc.config.settings import Settings
from cdc.delivery import slot_memory
from cdc.delivery.positions import EXACTLY_ONCE, Memory, RememberedTopic, SlotRecord
from cdc.lsn import LSN
from cdc.postgres import defects, slot_health
from cdc.postgres.connection import INVALIDATED, NEW_SLOT
from cdc.postgres.defects import RELOAD
from cdc.postgres.slot_health import CREATE, RECOVER, Health
from cdc.postgres.source import STREAM
from cdc.quantities import size
from cdc.replication.publication import GO_ON

_LEAST_LIMIT: Final = 10 * 1024**3  # bytes; an hour of 3 MB a second
_FAILOVER_VERSION: Final = 170000


def slot(
    notes: Notes, name: str, found: Health | None, reader: SlotReader | None, version: int, connection: str
) -> bool:
    """Check that the publisher can read the slot; return whether it can. `connection` is as for `failover`."""
    if found and (defect := slot_health.unfit(name, found, version)):
        fixes = [one.replace("'replication=database'", connection) for one in defect.fix]
        notes.fails("replication_slot", defect.problem, *fixes, hint=defect.hint)
        return False
    if problem := slot_health.problem(name, found):
        fix, hint = ((CREATE,), NEW_SLOT) if found is None else ((RECOVER,), INVALIDATED)
        notes.fails("replication_slot", problem[0], *fix, hint=hint)
        return False
    assert found is not None
    if found.confirmed is None:
        text = f"process {found.pid} of PostgreSQL has not finished creating replication slot {name!r}"
        notes.fails("replication_slot", text, hint="it waits for the end of the transactions that are open now")
        return False
    _read_by(notes, f"slot {name} is confirmed up to {found.confirmed}", reader)
    return True


def lost(notes: Notes) -> None:
    """Name the command that replaces a slot which a publisher has used, and which is missing or lost."""
    for one in notes.findings:
        if one.name == "replication_slot" and one.status == FAIL and one.fix in ((CREATE,), (RECOVER,)):
            notes.fails(one.name, one.found, RECOVER, hint="it creates the slot, and publishes missing events")


def _read_by(notes: Notes, text: str, reader: SlotReader | None) -> None:
    if reader is None:
        notes.passes("replication_slot", f"{text}; no client reads it")
    elif reader.application in (None, "", STREAM):
        notes.passes("replication_slot", f"{text}; read by a publisher, pid {reader.pid} of PostgreSQL")
    else:
        text = f"{text}, but {reader.application!r} reads it, pid {reader.pid} of PostgreSQL"
        notes.warns("replication_slot", text, f"SELECT pg_terminate_backend({reader.pid});", hint="or stop that client")


@dataclass(frozen=True)
class SlotNow:
    """The slot, and what its stream depends on, as `start` would find them: see `cdc.delivery.slot_memory.Present`."""

    slot: SlotRecord
    used: bool
    timelines: Mapping[int, LSN]
    wal_end: LSN
    identities: Callable[[Collection[str]], Mapping[str, RememberedTopic]]


def identity(notes: Notes, settings: Settings, now: SlotNow, memory: Memory) -> None:
    """Compare all that is remembered between runs as `start` does, with what the publisher left in Kafka."""
    found, record = now.slot, memory.record
    topics = slot_memory.topics_now(now, record, memory)
    fixes = ("cdc-publisher audit --repair", "cdc-publisher start --accept-changes")
    changes = [*slot_memory.changed(settings, now, record, memory), *topics.changes.values()]
    set_back = slot_memory.set_back(now, record)
    if set_back and settings.delivery.guarantee == EXACTLY_ONCE:
        notes.fails("slot_identity", set_back, hint=slot_memory.SET_BACK)
    elif changes:
        notes.fails("slot_identity", "; ".join(changes), *fixes, hint=GO_ON)
    elif set_back or topics.missing:
        text = "; ".join(filter(None, (set_back, topics.loss)))
        notes.warns("slot_identity", text, *fixes, hint="audit --repair publishes what is lost")
    elif record is None:
        text = "it was moved or dropped deliberately" if memory.forgotten else "no publisher has read this slot yet"
        notes.passes("slot_identity", f"no record of the slot: {text}")
    else:
        notes.passes(
            "slot_identity", f"slot, publication, table and topics match the publisher's record ({found.confirmed})"
        )


def retained(notes: Notes, name: str, found: Health, server: ServerFacts) -> None:
    """Check how much WAL the slot retains, and whether `max_slot_wal_keep_size` limits it."""
    limit = found.limit_bytes
    allowed = "" if limit is None else f" of at most {size(limit)}"
    raised = max(_LEAST_LIMIT, 2 * (limit or 0), 4 * (found.retained_bytes or 0), 4 * server.max_wal_bytes)
    fix = (f"ALTER SYSTEM SET max_slot_wal_keep_size = '{-(-raised // 1024**3)}GB';", RELOAD)
    state, sentence = slot_health.warning(name, found) or ("", "")
    if state == "extended":
        notes.warns("retained_wal", sentence, "cdc-publisher start", hint="WAL is released as events are delivered")
    elif state:
        notes.warns("retained_wal", sentence, *fix)
    else:
        notes.passes("retained_wal", f"the slot retains {size(found.retained_bytes or 0)} of WAL{allowed}")
    if limit is None:
        text = "max_slot_wal_keep_size is -1: while the publisher is stopped, WAL accumulates until the disk is full"
        hint = "a slot that exceeds the limit is lost with its events: choose as much as the disk has room for"
        notes.warns("slot_wal_limit", text, *fix, hint=hint)
    else:
        notes.passes("slot_wal_limit", f"max_slot_wal_keep_size is {size(limit)}")


def timeouts(notes: Notes, server: ServerFacts) -> None:
    """Check whether the server invalidates inactive slots (`idle_replication_slot_timeout`)."""
    value = server.idle_timeout
    defect_noted(
        notes,
        "idle_slot_timeout",
        defects.idle_timeout(value),
        "slots are not invalidated for being inactive",
        fatal=False,
    )


def synchronous(notes: Notes, names: str, standbys: list[str] | None) -> None:
    """Check whether commits of the server wait for the publisher; `standbys` are other clients that stream WAL."""
    defect = defects.synchronous(names, STREAM, standbys)
    defect_noted(notes, "synchronous_standby", defect, "commits do not wait for the publisher", fatal=False)


def failover(
    notes: Notes, name: str, found: Health, server: ServerFacts, others: list[OtherSlot], connection: str
) -> None:
    """Check whether standbys have a copy of the slot; `connection` is a quoted connection string for psql."""
    standbys = [one.name for one in others if one.physical and one.active]
    if found.away:
        defect_noted(notes, "failover_slot", defects.standbys_away(found.away), "", fatal=False)
    elif found.failover:
        defect = defects.failover(found.failover, server.failover_waits_for, standbys)
        text = f"the slot is a failover slot, which waits for {server.failover_waits_for}"
        defect_noted(notes, "failover_slot", defect, text, fatal=False)
    elif standbys and server.version >= _FAILOVER_VERSION:
        notes.warns(
            "failover_slot",
            f"there is a standby ({', '.join(standbys)}), but the slot is not a failover slot: promoting the standby"
            " loses the slot",
            f"psql {connection} -c 'ALTER_REPLICATION_SLOT {name} (FAILOVER true);'",
            hint="run it while the publisher is stopped; set sync_replication_slots = on at the standby",
        )
    else:
        notes.passes("failover_slot", "no standby needs a failover slot")


def others(notes: Notes, found: list[OtherSlot]) -> None:
    """Warn about inactive slots of other programs that retain much WAL, or are lost but still occupy a slot."""
    abandoned = [one for one in found if not one.active and one.wal_status in ("extended", "unreserved", "lost")]
    if not abandoned:
        notes.passes("other_slots", f"{len(found)} other slots, none abandoned")
        return
    text = ", ".join(
        f"{one.name} (lost)" if one.wal_status == "lost" else f"{one.name} (retains {size(one.retained_bytes or 0)})"
        for one in abandoned
    )
    drops = [f"SELECT pg_drop_replication_slot({defects.text(one.name)});" for one in abandoned]
    notes.warns("other_slots", f"no client reads {text}", *drops, hint="only if they are no longer needed")


def transactions(notes: Notes, found: list[LongTransaction], limit: float) -> None:
    """Warn about transactions that have written and stay open: WAL is retained from the oldest one's start."""
    if not found:
        notes.passes("long_transactions", f"no writing transaction has been open for more than {limit:g} s")
        return
    text = "; ".join(
        f"pid {one.pid} ({one.user}{f', {one.application}' if one.application else ''}, {one.state})"
        f" for {one.seconds:,.0f} s"
        for one in found
    )
    ends = [f"SELECT pg_terminate_backend({one.pid});" for one in found]
    notes.warns("long_transactions", f"open transactions retain WAL: {text}", *ends, hint="this rolls them back")


def prepared(notes: Notes, found: list[Prepared], limit: float, database: str) -> None:
    """Warn about transactions that were prepared more than `limit` seconds ago; they retain WAL too."""
    if not found:
        notes.passes("prepared_transactions", f"no transaction was prepared more than {limit:g} s ago")
        return
    text = "; ".join(f"{one.gid} of {one.owner} in {one.database} for {one.seconds:,.0f} s" for one in found)
    ends = [
        f"ROLLBACK PREPARED {defects.text(one.gid)};" + ("" if one.database == database else f" -- in {one.database}")
        for one in found
    ]
    hint = "or COMMIT PREPARED; ask the transaction's owner"
    notes.warns("prepared_transactions", f"prepared transactions retain WAL: {text}", *ends, hint=hint)

"""The replication slot, the WAL it holds, and what may take it away."""

from typing import Final

from cdc.checks.finding import Notes
from cdc.checks.postgres import defect_noted
from cdc.checks.postgres_facts import LongTransaction, OtherSlot, Prepared, Reader, Server
from cdc.delivery.positions import SlotRecord, differences
from cdc.postgres import defects
from cdc.postgres import slot_health as health
from cdc.postgres.catalog import PLUGIN
from cdc.postgres.connection import INVALIDATED, NEW_SLOT
from cdc.postgres.defects import RELOAD
from cdc.postgres.slot_health import Health
from cdc.quantities import size
from cdc.replication.publication import GO_ON

CREATE: Final = "cdc-publisher slot create"
DROP: Final = "cdc-publisher slot drop --yes"
_STREAM: Final = "cdc-publisher stream"
_LEAST_LIMIT: Final = 10 * 1024**3  # bytes; an hour of 3 MB a second
_FAILOVER_VERSION: Final = 170000


def slot(notes: Notes, name: str, found: Health | None, reader: Reader | None) -> bool:
    """Whether the slot can be read."""
    if found is not None and found.plugin != PLUGIN:
        kind = f"uses the plugin {found.plugin}" if found.plugin else "is a physical slot"
        hint = "name a logical slot of plugin pgoutput in [postgres] slot"
        notes.fails("replication_slot", f"replication slot {name!r} {kind}", hint=hint)
        return False
    if found is not None and not found.here:
        told = f"replication slot {name!r} belongs to database {found.database!r}"
        notes.fails("replication_slot", told, hint="check [postgres] dsn, or name another [postgres] slot")
        return False
    if problem := health.problem(name, found):
        fix, hint = ((CREATE,), NEW_SLOT) if found is None else ((DROP, CREATE), INVALIDATED)
        notes.fails("replication_slot", problem[0], *fix, hint=hint)
        return False
    assert found is not None
    _read_by(notes, f"slot {name} stands at {found.confirmed}", reader)
    return True


def _read_by(notes: Notes, told: str, reader: Reader | None) -> None:
    if reader is None:
        notes.passes("replication_slot", f"{told}; nobody reads it")
    elif reader.application in (None, "", _STREAM):
        notes.passes("replication_slot", f"{told}; read by our publisher, pid {reader.pid} of PostgreSQL")
    else:
        told = f"{told}, but {reader.application!r} reads it, pid {reader.pid} of PostgreSQL"
        notes.warns("replication_slot", told, f"SELECT pg_terminate_backend({reader.pid});", hint="or stop it there")


def identity(notes: Notes, found: SlotRecord, remembered: SlotRecord | None, *, forgotten: bool) -> None:
    """Whether slot, publication, table and settings are as the publisher left them."""
    if remembered is None:
        told = "it was moved or dropped on purpose" if forgotten else "no publisher has read this slot yet"
        notes.passes("slot_identity", f"nothing to compare with: {told}")
        return
    told = "; ".join(differences(found, remembered))
    if told:
        notes.fails(
            "slot_identity", told, "cdc-publisher audit --repair", "cdc-publisher start --accept-changes", hint=GO_ON
        )
    else:
        notes.passes("slot_identity", f"slot, publication and table are as the publisher left them ({found.confirmed})")


def retained(notes: Notes, name: str, found: Health, server: Server) -> None:
    """How much WAL the slot holds, and how much it may."""
    limit = found.limit_bytes
    allowed = "" if limit is None else f" of {size(limit)} at the most"
    raised = max(_LEAST_LIMIT, 2 * (limit or 0), 4 * (found.retained_bytes or 0), 4 * server.max_wal_bytes)
    fix = (f"ALTER SYSTEM SET max_slot_wal_keep_size = '{-(-raised // 1024**3)}GB';", RELOAD)
    state, sentence = health.warning(name, found) or ("", "")
    if state == "extended":
        notes.warns("retained_wal", sentence, "cdc-publisher start", hint="what is delivered is released")
    elif state:
        notes.warns("retained_wal", sentence, *fix)
    else:
        notes.passes("retained_wal", f"{size(found.retained_bytes or 0)} of WAL are kept for the slot{allowed}")
    if limit is None:
        told = "max_slot_wal_keep_size is -1: while the publisher does not run, WAL is kept until the disk is full"
        hint = "a slot that passes the limit is lost with its events: as much as the disk has room for"
        notes.warns("slot_wal_limit", told, *fix, hint=hint)
    else:
        notes.passes("slot_wal_limit", f"max_slot_wal_keep_size is {size(limit)}")


def timeouts(notes: Notes, server: Server) -> None:
    """Whether the server takes a slot away that nobody reads."""
    value = server.idle_timeout
    defect_noted(
        notes, "idle_slot_timeout", defects.idle_timeout(value), "slots are not taken away for idleness", fatal=False
    )


def failover(notes: Notes, name: str, found: Health, server: Server, others: list[OtherSlot], connection: str) -> None:
    """Whether standbys have the slot, and no less than Kafka; `connection` leads psql to the server."""
    standbys = [one.name for one in others if one.physical and one.active]
    if found.failover:
        defect = defects.failover(found.failover, server.failover_waits_for, standbys)
        told = f"the slot is a failover slot, which waits for {server.failover_waits_for}"
        defect_noted(notes, "failover_slot", defect, told, fatal=False)
    elif standbys and server.version >= _FAILOVER_VERSION:
        notes.warns(
            "failover_slot",
            f"there is a standby ({', '.join(standbys)}), but the slot is no failover slot: when that is promoted, the"
            " slot is gone",
            f"psql {connection} -c 'ALTER_REPLICATION_SLOT {name} (FAILOVER true);'",
            hint="while the publisher does not run; sync_replication_slots = on at the standby",
        )
    else:
        notes.passes("failover_slot", "no standby asks for a failover slot")


def others(notes: Notes, found: list[OtherSlot]) -> None:
    """Slots of others that hold the disk, or a place among the slots."""
    held = [one for one in found if not one.active and one.wal_status in ("extended", "unreserved", "lost")]
    if not held:
        notes.passes("other_slots", f"{len(found)} other slots, none abandoned")
        return
    told = ", ".join(
        f"{one.name} (lost)" if one.wal_status == "lost" else f"{one.name} (holds {size(one.retained_bytes or 0)})"
        for one in held
    )
    drops = [f"SELECT pg_drop_replication_slot({defects.text(one.name)});" for one in held]
    notes.warns("other_slots", f"nobody reads {told}", *drops, hint="only if nobody is to read it any more")


def transactions(notes: Notes, found: list[LongTransaction], limit: float) -> None:
    """Open transactions that have written: WAL is kept from the begin of the oldest on."""
    if not found:
        notes.passes("long_transactions", f"none is open for more than {limit:g} s")
        return
    told = "; ".join(
        f"pid {one.pid} ({one.user}{f', {one.application}' if one.application else ''}, {one.state})"
        f" for {one.seconds:,.0f} s"
        for one in found
    )
    ends = [f"SELECT pg_terminate_backend({one.pid});" for one in found]
    notes.warns("long_transactions", f"open, and so WAL is kept: {told}", *ends, hint="it is rolled back by that")


def prepared(notes: Notes, found: list[Prepared], limit: float, database: str) -> None:
    """Prepared transactions that nobody ends."""
    if not found:
        notes.passes("prepared_transactions", f"none was prepared more than {limit:g} s ago")
        return
    told = "; ".join(f"{one.gid} of {one.owner} in {one.database} for {one.seconds:,.0f} s" for one in found)
    ends = [
        f"ROLLBACK PREPARED {defects.text(one.gid)};" + ("" if one.database == database else f" -- in {one.database}")
        for one in found
    ]
    hint = "or COMMIT PREPARED: whoever prepared it knows"
    notes.warns("prepared_transactions", f"prepared, and so WAL is kept: {told}", *ends, hint=hint)

"""Checks the health of a slot: whether it still has its WAL, and how close it is to being invalidated.

PostgreSQL invalidates a slot rather than let it fill the disk (`max_slot_wal_keep_size`), and from 18 on one that
was idle for long (`idle_replication_slot_timeout`). Its WAL is lost then.
<https://www.postgresql.org/docs/current/view-pg-replication-slots.html>
"""

from dataclasses import dataclass
from typing import Final

from cdc.lsn import LSN
from cdc.postgres.connection import INVALIDATED, NEW_SLOT, Conn, query
from cdc.postgres.defects import Requirement
from cdc.quantities import size

PLUGIN: Final = "pgoutput"
CREATE: Final = "cdc-publisher slot create"
DROP: Final = "cdc-publisher slot drop --yes"
RECOVER: Final = "cdc-publisher recover"
_ALTERS_TWO_PHASE: Final = 180000  # 18: the first whose ALTER_REPLICATION_SLOT does
_NEAR: Final = 5  # warn when less than a fifth of max_slot_wal_keep_size is left


@dataclass(frozen=True, slots=True)
class Health:
    """One slot of `pg_replication_slots`; columns that a version of PostgreSQL does not have are None."""

    plugin: str | None
    database: str | None
    here: bool  # it belongs to the database of this connection
    confirmed: LSN | None
    wal_status: str | None  # reserved, extended, unreserved or lost
    safe_bytes: int | None  # WAL that can still be written before it is in danger
    retained_bytes: int | None
    limit_bytes: int | None  # max_slot_wal_keep_size
    invalidation: str | None  # why it was invalidated
    failover: bool
    temporary: bool  # it ends with the session that created it
    two_phase: bool  # prepared transactions are sent at PREPARE TRANSACTION
    pid: int | None  # of the process that reads or creates it
    sync_state: str | None  # of its reader: async, potential, sync or quorum
    away: str | None  # inactive slots of synchronized_standby_slots, for which a failover slot waits


def read(connection: Conn, name: str) -> Health | None:
    """Return the current state of a slot; None when it does not exist. Not for standbys."""
    found = query(
        connection,
        "reading the slot",
        """
        select s.plugin, s.database, coalesce(s.database = current_database(), false), s.confirmed_flush_lsn::text,
               s.wal_status, s.safe_wal_size, pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::int8,
               (select nullif(setting::int8, -1) * 1024 * 1024 from pg_settings where name = 'max_slot_wal_keep_size'),
               coalesce(to_jsonb(s) ->> 'invalidation_reason',
                        case when (to_jsonb(s) ->> 'conflicting')::bool then 'conflicting' end),
               coalesce((to_jsonb(s) ->> 'failover')::bool, false), s.temporary,
               coalesce((to_jsonb(s) ->> 'two_phase')::bool, false), s.active_pid,
               (select r.sync_state from pg_stat_replication r where r.pid = s.active_pid),
               case when (to_jsonb(s) ->> 'failover')::bool then (
                   select string_agg(name, ', ' order by name)
                   from unnest(string_to_array(nullif(current_setting('synchronized_standby_slots', true), ''), ',')) n,
                        trim(both ' "' from n) name
                   where name not in (
                       select slot_name from pg_replication_slots where slot_type = 'physical' and active)
               ) end
        from pg_replication_slots s where s.slot_name = %s
        """,
        name,
    )
    for plugin, database, here, confirmed, *rest in found:
        return Health(plugin, database, here, LSN.parse(confirmed) if confirmed else None, *rest)
    return None


def problem(name: str, health: Health | None) -> tuple[str, str] | None:
    """Return why the slot cannot be read any more, and what to do; None when it can."""
    if health is None:
        return (
            f"replication slot {name!r} does not exist",
            NEW_SLOT,
        )
    if health.wal_status != "lost" and not health.invalidation:
        return None
    reason = health.invalidation or "WAL that it needed was removed"
    since = f": events committed after LSN {health.confirmed} are not in it" if health.confirmed else ""
    return f"replication slot {name!r} is lost ({reason}){since}", INVALIDATED


def unfit(name: str, health: Health, version: int) -> Requirement | None:
    """Return the property of an existing slot for which the publisher cannot read it, and the fix; None if it can."""
    slot = f"replication slot {name!r}"
    if health.plugin != PLUGIN:
        kind = f"uses the plugin {health.plugin}" if health.plugin else "is a physical slot"
        return Requirement(f"{slot} {kind}", hint="name a logical slot of plugin pgoutput in [postgres] slot")
    if not health.here:
        hint = "check [postgres] dsn, or name another [postgres] slot"
        return Requirement(f"{slot} belongs to database {health.database!r}", hint=hint)
    if health.temporary and health.confirmed is not None:  # else `slot create` waits with it for transactions
        return Requirement(
            f"{slot} is temporary: it ends with the session of process {health.pid} that created it",
            (f"SELECT pg_terminate_backend({health.pid});", CREATE),
            "or name another [postgres] slot",
        )
    if health.two_phase:
        text = f"{slot} was created with two_phase, which sends transactions before they are committed"
        if version >= _ALTERS_TWO_PHASE:
            alter = f"ALTER_REPLICATION_SLOT {name} (TWO_PHASE false);"
            return Requirement(
                text, (f"psql 'replication=database' -c '{alter}'",), "run it while no client reads the slot"
            )
        return Requirement(text, (DROP, RECOVER))
    return None


def warning(name: str, health: Health) -> tuple[str, str] | None:
    """Return a state to warn about once, in a word, and the warning; None when the slot is safe."""
    left, limit = health.safe_bytes, health.limit_bytes
    kept = f"PostgreSQL keeps {size(health.retained_bytes or 0)} of WAL for replication slot {name!r}"
    allowed = "" if limit is None else f" of at most {size(limit)} (max_slot_wal_keep_size)"
    advice = "find out why events are not delivered, or raise max_slot_wal_keep_size while there is room on the disk"
    if health.wal_status == "unreserved":
        return "unreserved", f"{kept}{allowed}, and removes it at the next checkpoint: {advice}"
    if limit is not None and left is not None and left * _NEAR < limit:
        return "near", f"{kept}{allowed}; after {size(left)} more it invalidates the slot: {advice}"
    if health.wal_status == "extended":
        danger = "" if limit is not None else ", without a limit: the disk may fill up"
        return "extended", f"{kept}{allowed}, more than max_wal_size{danger}: {advice}"
    return None

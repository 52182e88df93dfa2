"""Read facts about a PostgreSQL server for `check`, each with one query that any role may run."""

import shlex
from typing import Final, NamedTuple

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from cdc.postgres.connection import query
from cdc.postgres.tables_below import TABLES_BELOW

Conn = Connection[TupleRow]

STATS_ROLE: Final = "pg_read_all_stats"


def user(dsn: str) -> str | None:
    """The role in a connection string; None if it names none."""
    return conninfo_to_dict(dsn).get("user")  # type: ignore[return-value]


def for_psql(dsn: str) -> str:
    """A connection string for replication commands, quoted for a shell, without the password."""
    given = conninfo_to_dict(dsn)
    known = {name: str(given[name]) for name in ("host", "port", "user", "dbname") if given.get(name)}
    return shlex.quote(make_conninfo(**known, replication="database"))


class Link(NamedTuple):
    """Facts about a connection."""

    host: str  # as configured; a folder means a Unix socket
    address: str  # its IP address; empty for a Unix socket
    port: int
    database: str
    user: str
    encrypted: bool
    sslmode: str
    pooled: bool  # a pooler is between the client and the server


def link(connection: Conn) -> Link:
    """Describe a connection."""
    info = connection.info
    ((pid,),) = query(connection, "asking for its pid", "select pg_backend_pid()")
    return Link(
        info.host,
        info.hostaddr,
        info.port,
        info.dbname,
        info.user,
        bool(connection.pgconn.ssl_in_use),
        _parameter(connection, b"sslmode") or "prefer",
        # A pooler reports a pid of its own, since the server process behind it changes.
        info.backend_pid != pid,
    )


def _parameter(connection: Conn, keyword: bytes) -> str:
    """Return a parameter of a connection; psycopg's own function fails for a user without a home directory."""
    return next(
        (option.val.decode() for option in connection.pgconn.info if option.keyword == keyword and option.val), ""
    )


class ServerFacts(NamedTuple):
    """Settings of the server, and the slots and walsenders in use. Settings unknown to its version are None."""

    version: int
    version_text: str
    standby: bool
    wal_level: str
    max_slots: int
    slots: int
    max_senders: int
    senders: int
    sender_timeout: str  # of walsenders, with its unit; 0 disables it
    idle_timeout: str | None  # of slots
    failover_waits_for: str | None  # synchronized_standby_slots
    slot_limit_bytes: int | None  # max_slot_wal_keep_size; None means no limit
    max_wal_bytes: int
    synchronous_names: str  # synchronous_standby_names


def server(connection: Conn) -> ServerFacts:
    """Read the server's settings and usage in one query."""
    ((*found,),) = query(
        connection,
        "reading settings",
        """
        select current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
               current_setting('wal_level'),
               current_setting('max_replication_slots')::int, (select count(*) from pg_replication_slots),
               current_setting('max_wal_senders')::int, (select count(*) from pg_stat_replication),
               current_setting('wal_sender_timeout'), current_setting('idle_replication_slot_timeout', true),
               current_setting('synchronized_standby_slots', true),
               (select nullif(setting::int8, -1) * 1024 * 1024 from pg_settings where name = 'max_slot_wal_keep_size'),
               (select setting::int8 * 1024 * 1024 from pg_settings where name = 'max_wal_size'),
               current_setting('synchronous_standby_names')
        """,
    )
    return ServerFacts(*found)


class Rights(NamedTuple):
    """The role's rights other than replication."""

    user: str
    sees_sessions: bool  # may see the activity of other roles' sessions
    uses_schema: bool
    selects: bool


def rights(connection: Conn, table: tuple[str, str]) -> Rights:
    """Read the rights on a table; a table that does not exist counts as readable."""
    ((*found,),) = query(
        connection,
        "reading the role's rights",
        """
        select current_user, pg_has_role(current_user, %s, 'usage'),
               coalesce((select has_schema_privilege(n.oid, 'usage') from pg_namespace n where n.nspname = %s), true),
               coalesce((select has_table_privilege(c.oid, 'select') from pg_class c
                         join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s), true)
        """,
        STATS_ROLE,
        table[0],
        *table,
    )
    return Rights(*found)


class Published(NamedTuple):
    """What a publication publishes in addition to inserts into the outbox table."""

    everything: bool  # FOR ALL TABLES
    others: list[tuple[str, str]]  # schema and name of up to five other tables
    other_changes: list[str]


def published(connection: Conn, publication: str, table: tuple[str, str]) -> Published:
    """Read the scope of a publication, which must exist."""
    ((everything, updates, deletes, truncates),) = query(
        connection,
        "reading the publication",
        "select puballtables, pubupdate, pubdelete, pubtruncate from pg_publication where pubname = %s",
        publication,
    )
    others = query(
        connection,
        "reading the publication",
        TABLES_BELOW
        + """
        select distinct t.schemaname, t.tablename from pg_publication_tables t
        join pg_namespace n on n.nspname = t.schemaname
        join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
        where t.pubname = %s and c.oid not in (select relid from below)
        order by 1, 2 limit 5
        """,
        *table,
        publication,
    )
    changes = {"updates": updates, "deletes": deletes, "truncates": truncates}
    return Published(everything, others, [name for name, is_published in changes.items() if is_published])


class SlotReader(NamedTuple):
    """The client that reads the slot."""

    pid: int
    application: str | None  # None if the role may not see it


def reader(connection: Conn, slot: str) -> SlotReader | None:
    """Return the client that reads the slot; None if it is inactive."""
    found = query(
        connection,
        "reading the slot",
        """
        select s.active_pid, a.application_name from pg_replication_slots s
        left join pg_stat_activity a on a.pid = s.active_pid
        where s.slot_name = %s and s.active_pid is not null
        """,
        slot,
    )
    return SlotReader(*found[0]) if found else None


def standbys(connection: Conn) -> list[str] | None:
    """List the names of the clients that stream WAL without decoding it; None if the role may not see them."""
    found = query(
        connection,
        "reading the standbys",
        """
        select distinct application_name from pg_stat_replication
        where state is distinct from 'backup'
        and pid not in (select active_pid from pg_replication_slots where slot_type = 'logical' and active_pid > 0)
        order by 1
        """,
    )
    names = [name for (name,) in found]
    return None if None in names else names


class OtherSlot(NamedTuple):
    """A slot other than the publisher's."""

    name: str
    physical: bool
    active: bool
    wal_status: str | None
    retained_bytes: int | None


def other_slots(connection: Conn, own: str) -> list[OtherSlot]:
    """List all permanent slots except `own`, by name. The query fails on a standby."""
    found = query(
        connection,
        "reading the slots",
        """
        select slot_name, slot_type = 'physical', active, wal_status,
               pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8
        from pg_replication_slots where slot_name <> %s and not temporary order by slot_name
        """,
        own,
    )
    return [OtherSlot(*one) for one in found]


class LongTransaction(NamedTuple):
    """An open transaction that has written; `seconds` is its age."""

    pid: int
    user: str
    application: str
    state: str
    seconds: float


def long_transactions(connection: Conn, seconds: float) -> list[LongTransaction]:
    """List up to five visible transactions open for more than `seconds`, the oldest first."""
    found = query(
        connection,
        "reading the sessions",
        """
        select pid, coalesce(usename, '?'), application_name, coalesce(state, '?'),
               extract(epoch from clock_timestamp() - xact_start)::float8
        from pg_stat_activity
        where backend_xid is not null and pid <> pg_backend_pid() and backend_type <> 'walsender'
        and clock_timestamp() - xact_start > make_interval(secs => %s) order by xact_start limit 5
        """,
        seconds,
    )
    return [LongTransaction(*one) for one in found]


class Prepared(NamedTuple):
    """A prepared transaction; `seconds` have passed since PREPARE TRANSACTION."""

    gid: str
    database: str
    owner: str
    seconds: float


def prepared(connection: Conn, seconds: float) -> list[Prepared]:
    """List up to five transactions that were prepared more than `seconds` ago, the oldest first."""
    found = query(
        connection,
        "reading the prepared transactions",
        """
        select gid, database, owner, extract(epoch from clock_timestamp() - prepared)::float8
        from pg_prepared_xacts where clock_timestamp() - prepared > make_interval(secs => %s) order by prepared limit 5
        """,
        seconds,
    )
    return [Prepared(*one) for one in found]

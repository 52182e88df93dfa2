"""What `check` reads of a server: facts, each by one query that any role may run, and nothing is changed."""

import shlex
from typing import Final, NamedTuple

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from cdc.postgres.connection import query

Conn = Connection[TupleRow]

STATS_ROLE: Final = "pg_read_all_stats"


def user(dsn: str) -> str | None:
    """The role that a connection string names, if it does."""
    return conninfo_to_dict(dsn).get("user")  # type: ignore[return-value]


def for_psql(dsn: str) -> str:
    """A connection string for commands of replication, quoted for a shell; without the password."""
    given = conninfo_to_dict(dsn)
    known = {name: str(given[name]) for name in ("host", "port", "user", "dbname") if given.get(name)}
    return shlex.quote(make_conninfo(**known, replication="database"))


class Link(NamedTuple):
    """The connection itself."""

    host: str  # as it was asked for; a folder means a Unix socket
    address: str  # the IP address that it leads to; empty for a Unix socket
    port: int
    database: str
    user: str
    encrypted: bool
    sslmode: str
    pooled: bool  # somebody between us and the server answers in its name


def link(connection: Conn) -> Link:
    """What the connection is like."""
    info = connection.info
    ((pid,),) = query(connection, "asking for its pid", "select pg_backend_pid()")
    return Link(
        info.host,
        info.hostaddr,
        info.port,
        info.dbname,
        info.user,
        bool(connection.pgconn.ssl_in_use),
        info.get_parameters().get("sslmode", "prefer"),
        # A pooler hands out a number of its own, since the server's process changes.
        info.backend_pid != pid,
    )


class Server(NamedTuple):
    """Settings of the server, and how much of what is limited is in use. What a version does not know is None."""

    version: int
    version_text: str
    standby: bool
    wal_level: str
    max_slots: int
    slots: int
    max_senders: int
    senders: int
    sender_timeout: str  # of walsenders, with its unit; 0 is for ever
    idle_timeout: str | None  # of slots
    failover_waits_for: str | None  # synchronized_standby_slots
    slot_limit_bytes: int | None  # max_slot_wal_keep_size; None is without limit
    max_wal_bytes: int


def server(connection: Conn) -> Server:
    """The server's settings."""
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
               (select setting::int8 * 1024 * 1024 from pg_settings where name = 'max_wal_size')
        """,
    )
    return Server(*found)


class Rights(NamedTuple):
    """What the role may do beyond replicating."""

    user: str
    sees_sessions: bool  # what other roles' sessions do
    uses_schema: bool
    selects: bool


def rights(connection: Conn, table: tuple[str, str]) -> Rights:
    """The rights on a table; of one that is not there, none is missing."""
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
    """What a publication publishes beside the inserts of our table."""

    everything: bool  # FOR ALL TABLES
    others: list[tuple[str, str]]  # schema and name of other tables, some of them
    other_changes: list[str]


def published(connection: Conn, publication: str, table: tuple[str, str]) -> Published:
    """Of a publication that exists."""
    ((everything, updates, deletes, truncates),) = query(
        connection,
        "reading the publication",
        "select puballtables, pubupdate, pubdelete, pubtruncate from pg_publication where pubname = %s",
        publication,
    )
    others = query(
        connection,
        "reading the publication",
        """
        select distinct t.schemaname, t.tablename from pg_publication_tables t
        join pg_namespace n on n.nspname = t.schemaname
        join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
        where t.pubname = %s and (t.schemaname, t.tablename) <> (%s, %s)
        and not exists (  -- a partition of ours
            select from pg_partition_ancestors(c.oid) a join pg_class root on root.oid = a.relid
            join pg_namespace of on of.oid = root.relnamespace where of.nspname = %s and root.relname = %s)
        order by 1, 2 limit 5
        """,
        publication,
        *table,
        *table,
    )
    changes = {"updates": updates, "deletes": deletes, "truncates": truncates}
    return Published(everything, others, [name for name, is_published in changes.items() if is_published])


class Reader(NamedTuple):
    """Who reads our slot now."""

    pid: int
    application: str | None  # None: may not be seen


def reader(connection: Conn, slot: str) -> Reader | None:
    """None when nobody does."""
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
    return Reader(*found[0]) if found else None


class OtherSlot(NamedTuple):
    """A slot that is not ours."""

    name: str
    physical: bool
    active: bool
    wal_status: str | None
    retained_bytes: int | None


def other_slots(connection: Conn, ours: str) -> list[OtherSlot]:
    """All slots but ours, by name; not for standbys."""
    found = query(
        connection,
        "reading the slots",
        """
        select slot_name, slot_type = 'physical', active, wal_status,
               pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8
        from pg_replication_slots where slot_name <> %s and not temporary order by slot_name
        """,
        ours,
    )
    return [OtherSlot(*one) for one in found]


class LongTransaction(NamedTuple):
    """A transaction that has written, and is open for long."""

    pid: int
    user: str
    application: str
    state: str
    seconds: float


def long_transactions(connection: Conn, seconds: float) -> list[LongTransaction]:
    """Those that have been open for more than `seconds`, the oldest first; only what the role may see."""
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
    """A transaction that was prepared and neither committed nor rolled back."""

    gid: str
    database: str
    owner: str
    seconds: float


def prepared(connection: Conn, seconds: float) -> list[Prepared]:
    """Those that were prepared more than `seconds` ago, the oldest first."""
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

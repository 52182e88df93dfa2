"""One session of PostgreSQL: the settings that it depends on, and reports of the locks that it waits for."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, LiteralString

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.5  # a statement that takes longer may wait for a lock
REPLY_SECONDS: Final = 5.0  # that the server gets beyond the time limit of a statement

# A role, a database, PGOPTIONS or the DSN may set others; set_config comes after all of them, and works on replication
# connections too.
_SETTINGS: Final = {
    # The text of values.
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # The text of definitions, which are compared with those of the last run.
    "search_path": "pg_catalog",
    "quote_all_identifiers": "off",
    # The meaning of statements.
    "row_security": "off",  # a row that a policy hides is an error, and is not overlooked
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # From 18 on, only a warning reports that a publication is missing.
    "client_min_messages": "warning",
    "exit_on_error": "off",
    # The server would end the session of a publisher that waits for Kafka, or of a large transaction.
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
_SINCE: Final = {170000: {"transaction_timeout": "0"}}
# Only superusers may change these. The classification of errors goes by their texts where they have no SQLSTATE.
_SUPERUSER: Final = {"session_replication_role": "origin", "lc_messages": "C"}

_BLOCKERS: Final[LiteralString] = """
    with waiting as (select * from pg_locks where pid = %(pid)s and not granted limit 1)
    select blocker.pid, a.usename, a.application_name, a.state,
           extract(epoch from clock_timestamp() - a.xact_start)::float8,
           (select format('%%I.%%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.oid = w.relation),
           (select string_agg(distinct p.gid, ', ') from pg_locks l
            join pg_locks own on own.pid is null and own.virtualtransaction = l.virtualtransaction
            join pg_prepared_xacts p on p.transaction = own.transactionid
            where l.pid is null and l.granted and l.locktype = w.locktype
            and l.relation is not distinct from w.relation and l.transactionid is not distinct from w.transactionid)
    from (select distinct unnest(pg_blocking_pids(%(pid)s))) blocker(pid)
    left join pg_stat_activity a on a.pid = blocker.pid left join waiting w on true
    order by blocker.pid
"""


class PostgresSession(psycopg.Connection[TupleRow]):
    """A connection that logs for whom a statement waits, and ends when the server does not reply in time.

    `observer` opens another connection to the same server; `patience` is in seconds.
    """

    observer: "Callable[[], psycopg.Connection[TupleRow]] | None" = None
    patience = math.inf
    _blockers = ""
    _logged = ""

    @property
    def blockers(self) -> str:
        """For whom the last statement waited, in a phrase; empty unless it waited for a lock."""
        return self._blockers

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether this is a standby, and libpq had other hosts to choose from."""
        hosts = {one.keyword: one.val or b"" for one in self.pgconn.info}
        several = b"," in hosts.get(b"host", b"") + hosts.get(b"hostaddr", b"")
        return several and self.pgconn.parameter_status(b"in_hot_standby") == b"on"

    def wait(self, gen: PQGen[Any], *arguments: Any, **options: Any) -> Any:
        """Run a generator of psycopg to its end. Raises psycopg.Error; that of a lock names who holds it."""
        self._blockers = ""
        try:
            return super().wait(self._watched(gen), *arguments, **options)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
            if self._blockers:
                error.args = (f"{str(error).splitlines()[0]}: {self._blockers}",)
            raise

    def command(self, statement: bytes) -> pq.abc.PGresult:
        """Run one statement by the simple protocol, the only one of replication connections; return its result."""
        self.pgconn.send_query(statement)
        return self.wait(generators.execute(self.pgconn))[-1]  # type: ignore[no-any-return]

    def pin(self, limits: Mapping[str, float]) -> pq.abc.PGresult:
        """Set what statements depend on, and `limits`, time limits in seconds by the name of their setting.

        Behind a pooler nothing stays set.
        """
        # A pooler, which reports a pid of its own, would keep them on a connection that it hands to other clients.
        pooled = f"pg_backend_pid() <> {self.info.backend_pid}"
        return self.command(f"select {_calls(self.info.server_version, limits, pooled)}".encode())

    def pinned(self, limits: Mapping[str, float]) -> str:
        """Return the statement that sets the same until the end of the transaction, which a pooler lets pass."""
        return f"select {_calls(self.info.server_version, limits, 'true')}"

    def _watched(self, gen: PQGen[Any]) -> PQGen[Any]:
        """Pass a generator through, which psycopg resumes with 0 while the server is silent."""
        began = time.monotonic()
        look_at = began + _LOOK_SECONDS
        try:
            state = next(gen)
            while True:
                ready = yield state
                now = time.monotonic()
                if not ready and now >= began + self.patience:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server has not replied for {self.patience:g} s")
                if not ready and now >= look_at:
                    self._look()
                    look_at = time.monotonic() + (now - began)
                state = gen.send(ready)
        except StopIteration as done:
            return done.value

    def _look(self) -> None:
        """Log who holds the lock that the server process of this session waits for, if it waits for one."""
        if self.observer is None:
            return
        try:
            with self.observer() as connection:
                found = connection.execute(_BLOCKERS, {"pid": self.info.backend_pid}).fetchall()
        except psycopg.Error as error:
            log.debug("the sessions that block another cannot be read: %s", error)
            return
        if not found:
            return
        names = "; ".join(_named(*blocker) for *blocker, _, _ in found)
        relation, gids = found[0][-2:]
        if gids:
            names = names.replace(_PREPARED, f"{_PREPARED} {gids}")
        lock = f"a lock on {relation}, held by {names}" if relation else f"the end of the transaction of {names}"
        self._blockers = f"waiting for {lock}"
        if (key := f"{relation} {[blocker[0] for blocker in found]}") != self._logged:
            self._logged = key
            log.warning(
                "PostgreSQL: waiting for %s",
                lock,
                extra={"event": "waiting_for_lock", "pids": [blocker[0] for blocker in found]},
            )


def _calls(version: int, limits: Mapping[str, float], local: str) -> str:
    """Return the calls that set what statements depend on; `local` says whether only for a transaction."""
    settings = dict(_SETTINGS)
    for since, more in _SINCE.items():
        settings |= more if version >= since else {}
    settings |= {name: f"{round(seconds * 1000)}ms" for name, seconds in limits.items()}
    calls = [f"set_config('{name}', '{value}', {local})" for name, value in settings.items()]
    calls += [
        f"case when current_setting('is_superuser') = 'on' then set_config('{name}', '{value}', {local}) end"
        for name, value in _SUPERUSER.items()
    ]
    return ", ".join(calls)


_PREPARED: Final = "prepared transaction"


def _named(pid: int, user: str | None, application: str | None, state: str | None, seconds: float | None) -> str:
    if not pid:
        return _PREPARED
    facts = [f"role {user}" if user else "", application or "", state or ""]
    age = f", its transaction is open for {seconds:.0f} s" if seconds is not None else ""
    return f"process {pid} ({', '.join(filter(None, facts))}{age})"

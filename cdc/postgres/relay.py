"""The statements of a relay: ticks, reading, confirmation and deletion, each in a transaction of its own.

A relay is a row of `cdc_relay`; `cdc_ticks` has its snapshots. Each statement that depends on snapshots is fenced: it
asks in the same transaction whether the row is still as this process left it. So a relay that was taken over does
nothing more, and neither does one whose connection leads to another server by now, as a pooler's does after a failover.

Nothing is prepared and nothing is set for longer than a transaction, so that poolers can be in between.
"""

import select
import socket
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from psycopg import generators, sql

from cdc.errors import PostgresUnavailable
from cdc.lsn import LSN
from cdc.polling import batches
from cdc.polling.progress import Progress
from cdc.polling.reader import PART_ROWS, Present, Rows, Tick
from cdc.polling.schedule import Holding
from cdc.polling.snapshots import Snapshot
from cdc.postgres.connection import LONG_SECONDS, converting
from cdc.postgres.numbers import sequence_name
from cdc.postgres.session import PostgresSession
from cdc.replication import compose
from cdc.replication.compose import CopiedRows, copied_number
from cdc.replication.messages import Relation

FENCED_SECONDS: Final = 5.0
"""The limit of transactions that hold the fence, far below the lease."""
PART_BYTES: Final = 16_777_216
DELETED_ROWS: Final = 5_000

_LIMITS: Final[Mapping[str, float]] = {"statement_timeout": LONG_SECONDS, "lock_timeout": FENCED_SECONDS}
LONG: Final = ", ".join(f"set_config('{name}', '{seconds:g}s', true)" for name, seconds in _LIMITS.items())
SHORT: Final = LONG.replace(f"{LONG_SECONDS:g}s", f"{FENCED_SECONDS:g}s")


SHAPE: Final = """(
    select string_agg(concat_ws(' ', a.attname, a.atttypid), ', ' order by a.attnum)
    from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
)"""
"""An expression for the columns of the table `c` of pg_class."""


class RelayRow(NamedTuple):
    """The row of a relay."""

    id: str
    outbox: str
    holding: Holding
    last: int  # number of the last tick
    confirmed: LSN  # all numbers below it are confirmed
    progress: Progress  # that is confirmed
    cleared: Snapshot
    handover: str | None


class RowSource(NamedTuple):
    """The columns that are read of each row, and how."""

    relation: Relation
    binary: bool
    commits: bool  # the last column is the time of the commit, which is not in the table
    shape: str  # SHAPE as of when the columns were looked up, or before


class RelayConnection:
    """One connection for the relay `name` of an outbox table.

    Raises what `converting` does, and PostgresUnavailable when the relay is another's by now.
    """

    def __init__(self, connection: PostgresSession, table: tuple[str, str], name: str) -> None:
        self.connection = connection
        self.epoch = self.last = 0
        self._names: dict[str, sql.Composable] = {
            "outbox": sql.Identifier(*table),
            "relays": sql.Identifier(table[0], "cdc_relay"),
            "ticks": sql.Identifier(table[0], "cdc_ticks"),
            "sequence": sql.SQL(sequence_name(table)),  # quoted
            "relay": sql.Literal(name),
            "channel": sql.Identifier(name),
        }

    def close(self) -> None:
        """Close the connection in any state."""
        self.connection.close()

    def row(self) -> RelayRow | None:
        """Return the row of the relay; None when there is none."""
        rows = self._run(
            "reading the relay",
            "select id::text, outbox, holder, epoch, heartbeat, locked, last_batch, confirmed_batch,"
            " confirmed_snapshot::text, partly_snapshot::text, partly_until, rows_in_batches, cleared_snapshot::text,"
            " handover::text, coalesce(t.batch, 0), coalesce(t.xid::text::int8, 0) from {relays} r left join lateral"
            " (select batch, xid from {ticks} t where t.relay = r.relay"
            " and t.snapshot::text = coalesce(r.partly_snapshot, r.confirmed_snapshot)::text"
            " order by batch desc limit 1) t on true where r.relay = {relay}",
        )
        if not rows:
            return None
        ((*first, seen, partly, until, count, cleared, handover, tick, xid),) = rows
        identity, outbox, holder, epoch, beat, locked, last, confirmed = first
        partly = None if partly is None else Snapshot.parse(partly)
        return RelayRow(
            identity,
            outbox,
            Holding(holder, epoch, beat, locked),
            last,
            LSN(confirmed),
            Progress(Snapshot.parse(seen), partly, until, tick, xid, count),
            Snapshot.parse(cleared),
            handover,
        )

    @property
    def direct(self) -> bool:
        """Whether no pooler is in between, which reports a pid of its own."""
        return self._run("looking for a pooler", "select pg_backend_pid()") == [(self.connection.info.backend_pid,)]

    def listen(self, notified: Callable[[], None]) -> None:
        """Call `notified` for each NOTIFY on the channel that has the relay's name; see `wait`."""
        self.connection.add_notify_handler(lambda _: notified())
        self._run("listening for notifications", "listen {channel}")

    def wait(self, seconds: float, ended: socket.socket) -> bool:
        """Wait until the server sends something, or `seconds` are over; return whether `ended` was closed before."""
        answers, stop = self.connection.fileno(), ended.fileno()
        ready, _, _ = select.select([answers, stop], [], [], max(0.0, seconds))
        if answers in ready:
            with converting("waiting for notifications"):
                self.connection.wait(generators.notifies(self.connection.pgconn))
        return stop in ready

    def lock(self, identity: str, seconds: float) -> bool:
        """Take the advisory lock of a relay for as long as the connection lives, if it is free.

        The server ends the connection when it is silent for `seconds`.
        """
        ((locked, _),) = self._run(
            "locking the relay",
            "select pg_try_advisory_lock(hashtextextended({key}, 0)),"
            " set_config('idle_session_timeout', {limit}, false)",
            key=_lock(identity),
            limit=f"{seconds:g}s",
        )
        return bool(locked)

    def is_locked(self, identity: str) -> bool:
        """Whether another session has the advisory lock of a relay."""
        return bool(
            self._run(
                "reading locks",
                "select 1 from pg_locks l, hashtextextended({key}, 0) k where l.locktype = 'advisory' and l.granted"
                " and l.database = (select oid from pg_database where datname = current_database()) and l.objsubid = 1"
                " and l.classid::int8 = (k >> 32) & 4294967295 and l.objid::int8 = k & 4294967295"
                " and l.pid <> pg_backend_pid()",
                key=_lock(identity),
            )
        )

    def has_tick(self, number: int, xid: int) -> bool:
        """Whether the table has a tick of this number and transaction: one that was lost may have left its number."""
        return bool(
            self._run(
                "reading snapshots",
                "select 1 from {ticks} where relay = {relay} and batch = {number} and xid = {xid}::text::xid8",
                number=number,
                xid=xid,
            )
        )

    def restored(self) -> str:
        """Return what shows that the database was restored from a dump, or set back; empty when nothing does.

        VACUUM keeps the id of the transaction that wrote a row, and a dump does not.
        """
        rows = self._run(
            "reading snapshots",
            "select xmin::text::int8 = (xid::text::int8 & 4294967295), pg_snapshot_xmax(pg_current_snapshot())"
            " >= pg_snapshot_xmax(snapshot) from {ticks} where relay = {relay} order by batch desc limit 1",
        )
        for written, ahead in rows:
            if not written:
                return "other transactions wrote its snapshots than these say: a dump was restored"
            if not ahead:
                return "the ids of transactions went back behind the last snapshot of the relay"
        return ""

    def take(self, found: RelayRow, epoch: int, holder: str, *, locked: bool) -> bool:
        """Become the holder, unless another process did or the holder lives, since the row was read."""
        before = found.holding
        taken = self._run(
            "taking over the relay",
            "update {relays} set epoch = {epoch}, holder = {holder}, locked = {locked}, heartbeat = heartbeat + 1,"
            " heartbeat_at = clock_timestamp() where relay = {relay} and epoch = {before} and heartbeat = {beat}"
            " and holder is not distinct from {other} returning last_batch",
            epoch=epoch,
            holder=holder,
            locked=locked,
            before=before.epoch,
            beat=before.heartbeat,
            other=before.holder,
        )
        if taken:
            self.epoch, self.last = epoch, taken[0][0]
        return bool(taken)

    def hand_over(self) -> None:
        """Take note that the slot from before has published all that it had to: it may be dropped."""
        self._run("taking over from the slot", "update {relays} set handover = null where relay = {relay}")

    def beat(self) -> None:
        """Count the heartbeat up."""
        self._held(
            self._run(
                "the heartbeat of the relay",
                "update {relays} set heartbeat = heartbeat + 1, heartbeat_at = clock_timestamp()"
                " where relay = {relay} and epoch = {epoch} returning 1",
                epoch=self.epoch,
            )
        )

    def release(self) -> None:
        """Let another process have the relay at once."""
        self._run(
            "giving up the relay",
            "update {relays} set holder = null, locked = false, heartbeat = heartbeat + 1"
            " where relay = {relay} and epoch = {epoch}",
            epoch=self.epoch,
        )

    def _held(self, rows: Sequence[object]) -> None:
        if not rows:
            raise PostgresUnavailable(
                "the relay is not as this process left it: another one took it over, or the server was set back"
            )

    def _run(self, doing: str, statement: str, *, limits: str = SHORT, **values: object) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own, in one round trip; return its rows."""
        with converting(doing):
            settings = sql.SQL(f"select set_config('synchronous_commit', 'on', true), {limits}; ")
            cursor = self.connection.execute(settings + self._filled(statement, **values))
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def _filled(self, statement: str, **values: object) -> sql.Composed:
        literals = {name: sql.Literal(int(each) if isinstance(each, LSN) else each) for name, each in values.items()}
        names: dict[str, sql.Composable] = {**self._names, **literals, "fence": self._fence()}
        return sql.SQL(statement).format(**names)

    def _fence(self) -> sql.Composable:
        return sql.SQL("relay = {} and epoch = {} and last_batch = {}").format(
            self._names["relay"], sql.Literal(self.epoch), sql.Literal(int(self.last))
        )


class Relay(RelayConnection):
    """One session of a relay that this process holds: see `cdc.polling.reader.Table`; it begins with `take`."""

    def __init__(self, connection: PostgresSession, table: tuple[str, str], name: str, source: RowSource) -> None:
        super().__init__(connection, table, name)
        self._source = source
        self.relation = compose.relation(source.relation)
        self._rows = CopiedRows(source.relation, binary=source.binary)

    def tick(self, number: LSN) -> Tick:
        """Take a snapshot, and store it under a number; it may be used when this returns."""
        rows = self._run(
            "taking a snapshot of the outbox",
            "with fence as (update {relays} set last_batch = {number}, heartbeat = heartbeat + 1,"
            " heartbeat_at = clock_timestamp() where {fence} returning relay)"
            " insert into {ticks} (relay, batch, snapshot, xid)"
            " select relay, {number}, pg_current_snapshot(), pg_current_xact_id() from fence"
            " returning snapshot::text, xid::text::int8,"
            " (extract(epoch from ticked_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::int8",
            number=number,
        )
        self._held(rows)
        self.last = number
        ((snapshot, xid, taken),) = rows
        return Tick(number, Snapshot.parse(snapshot), xid, taken)

    def present(self) -> Present:
        """Return what the database is at, without a look at the rows."""
        ((snapshot, number),) = self._run(
            "taking a snapshot", "select pg_current_snapshot()::text, last_value from {sequence}"
        )
        return Present(Snapshot.parse(snapshot), number)

    def has_rows(self, earlier: Snapshot, later: Snapshot) -> bool:
        """Whether rows became visible between two snapshots."""
        conditions = batches.between(earlier, later)
        if not conditions:
            return False
        ((found,),) = self._run("looking for rows of the outbox", f"select {_exists(conditions)}", limits=LONG)
        return bool(found)

    def read(self, earlier: Snapshot, later: Snapshot, after: int | None) -> Rows:
        """Read the rows that became visible between two snapshots, as many as fit into one part.

        With `after`, only those with a higher `cdc_seq`.
        """
        return self._copied(_with(batches.between(earlier, later), after))

    def portion(self, earlier: Snapshot, later: Snapshot, first: int, last: int) -> Rows:
        """Read those whose `cdc_seq` is between two, both included, as many as fit into one part."""
        conditions = batches.between(earlier, later)
        return self._copied([f"{one} and t.cdc_seq between {first} and {last}" for one in conditions])

    def numbers(self, earlier: Snapshot, later: Snapshot, after: int | None) -> Iterator["array[int]"]:
        """Yield the `cdc_seq` of all these rows in their order, in portions of a part."""
        conditions = _with(batches.between(earlier, later), after)
        selects = " union all ".join(f"select t.cdc_seq from {{outbox}} t where {one}" for one in conditions)
        statement = self._filled(f"copy ({selects} order by 1) to stdout (format binary)")
        portion = array("q")
        with self._reading(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            for data in copy:
                if (number := copied_number(bytes(data))) is not None:
                    portion.append(number)
                if len(portion) >= PART_ROWS:
                    yield portion
                    portion = array("q")
        yield portion

    def confirm(self, confirmed: LSN, progress: Progress) -> None:
        """Store what Kafka has confirmed, and drop the ticks that are not needed any more."""
        self._held(
            self._run(
                "confirming rows",
                "update {relays} set confirmed_batch = {confirmed}, confirmed_snapshot = {seen},"
                " partly_snapshot = {partly}, partly_until = {until}, rows_in_batches = {rows}"
                " where {fence} returning 1",
                confirmed=confirmed,
                seen=str(progress.seen),
                partly=None if progress.partly is None else str(progress.partly),
                until=progress.until,
                rows=progress.rows,
            )
        )
        tick = min(progress.tick, self.last)
        self._run("deleting snapshots", "delete from {ticks} where relay = {relay} and batch < {tick}", tick=tick)

    def delete(self, cleared: Snapshot, seen: Snapshot) -> int:
        """Delete some rows that `seen` sees and `cleared` does not, none that is locked; return how many."""
        return sum(self._delete(one) for one in batches.between(cleared, seen))

    def _delete(self, condition: str) -> int:
        rows = self._run(
            "deleting confirmed rows",
            "with chosen as (select t.tableoid as part, t.ctid as place from {outbox} t where"
            f" {condition} and t.cdc_seq is not null and exists (select from {{relays}} where {{fence}})"
            f" limit {DELETED_ROWS} for update of t skip locked),"
            f" gone as (delete from {{outbox}} t using chosen where t.tableoid = chosen.part"
            f" and t.ctid = chosen.place and {condition} returning 1) select count(*) from gone",
            limits=LONG,
        )
        return int(rows[0][0])

    def clear(self, cleared: Snapshot, seen: Snapshot) -> bool:
        """Store that all rows that a snapshot sees are deleted; return False when they are not.

        Rows that were committed long ago become fewer only, so the fence need not be held while they are looked for.
        """
        if self.has_rows(cleared, seen):
            return False
        statement = "update {relays} set cleared_snapshot = {seen} where {fence} returning 1"
        self._held(self._run("deleting confirmed rows", statement, seen=str(seen)))
        return True

    def _copied(self, conditions: Sequence[str]) -> Rows:
        numbers, frames, size = array("q"), list[bytes](), 0
        if not conditions:
            return Rows(numbers, frames, more=False)
        statement, insert = self._selection(conditions), self._rows.insert
        try:
            with self._reading(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
                for data in copy:
                    row = insert(bytes(data))
                    if row is None:
                        continue
                    if frames and (len(frames) >= PART_ROWS or size + len(row[1]) > PART_BYTES):
                        raise _Full
                    numbers.append(row[0])
                    frames.append(row[1])
                    size += len(row[1])
        except _Full:
            return Rows(numbers, frames, more=True)
        return Rows(numbers, frames, more=False)

    def _selection(self, conditions: Sequence[str]) -> sql.Composed:
        names = [sql.Identifier(column.name) for column in self._source.relation.columns]
        stored = names[:-1] if self._source.commits else names
        inner = [sql.SQL("t.{}").format(name) for name in stored]
        if self._source.commits:
            inner.append(sql.SQL("pg_xact_commit_timestamp(t.xmin) as {}").format(names[-1]))
        outer = [sql.SQL("b.{}{}").format(name, sql.SQL("" if self._source.binary else "::text")) for name in names]
        rows = [
            sql.SQL("select t.cdc_seq as cdc_seq, {} from {} t where {}").format(
                sql.SQL(", ").join(inner),
                self._names["outbox"],
                sql.SQL(one),
            )
            for one in conditions
        ]
        # Without OFFSET the limit would let PostgreSQL walk along the index on cdc_seq, past all rows that are older.
        return sql.SQL(
            "copy (select b.cdc_seq, {} from ({} offset 0) b order by b.cdc_seq limit {}) to stdout (format binary)"
        ).format(sql.SQL(", ").join(outer), sql.SQL(" union all ").join(rows), sql.Literal(PART_ROWS + 1))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read in one transaction, if the relay is still as this process left it.

        COPY takes its snapshot before its lock. So if it waited for an ALTER TABLE that rewrites the table, this would
        be empty for it: <https://www.postgresql.org/docs/current/mvcc-caveats.html>. Nothing has to wait for the lock
        that is taken first.
        """
        with converting("reading the outbox table"), self.connection.transaction():
            self.connection.execute(self.connection.pinned(_LIMITS).encode())
            self.connection.execute(self._filled("lock table {outbox} in access share mode"))
            shape = self._filled(
                f"select {SHAPE} = {{shape}} from {{relays}} left join pg_class c on c.oid = {{oid}} where {{fence}}",
                shape=self._source.shape,
                oid=self._source.relation.oid,
            )
            rows = self.connection.execute(shape).fetchall()
            self._held(rows)
            if rows != [(True,)]:
                raise PostgresUnavailable("the columns of the outbox have changed since this session began")
            yield


class _Full(Exception):
    """Ends a query: no more rows fit into a part."""


def _lock(identity: str) -> str:
    return f"cdc-publisher relay {identity}"


def _with(conditions: Sequence[str], after: int | None) -> list[str]:
    # A row without a number is a stray, which `check` shows.
    numbered = "t.cdc_seq is not null" if after is None else f"t.cdc_seq > {after}"
    return [f"{one} and {numbered}" for one in conditions]


def _exists(conditions: Sequence[str]) -> str:
    return " or ".join(f"exists (select from {{outbox}} t where {one} and t.cdc_seq is not null)" for one in conditions)

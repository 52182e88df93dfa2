"""Reads the events that the slot has not confirmed, from a temporary copy of the slot.

The copy starts at the slot's position, and works while the publisher streams. A transaction that the slot has passed
is in Kafka; any other is in the copy.
"""

import secrets
import time
from collections.abc import Iterator
from typing import Final

from psycopg import pq

from cdc.config.settings import Settings
from cdc.errors import PoisonEvent, PostgresError, PostgresUnavailable
from cdc.lsn import LSN
from cdc.outbox.events import Outbox
from cdc.postgres import slot_health, slots
from cdc.postgres.connection import Conn, query
from cdc.postgres.source import Source
from cdc.replication.frames import KEEPALIVE, XLOG_DATA, XLOG_HEADER_SIZE, keepalive, status_update
from cdc.replication.messages import Begin
from cdc.replication.pgoutput import decode
from cdc.replication.prefixes import Prefixes
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row, Transactions

_SILENCE_SECONDS: Final = 30.0
_ASK_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.1
_PAGE: Final = 8192
_PAGE_HEADERS: Final = (24, 40)


class Copy:
    """A copy of the settings' slot. Raises CdcError without a free slot, without privileges, without the slot.

    `oids` are those of the outbox, as far as they are known, and of tables that inherit from it.
    """

    def __init__(self, settings: Settings, oids: frozenset[int] = frozenset()) -> None:
        self._settings = settings
        self._oids = oids
        self._source = _Source(settings.postgres.dsn)
        self._name = f"cdc_audit_{secrets.token_hex(8)}"
        try:
            self.confirmed = self._source.copy(settings.postgres.slot, self._name)
        except BaseException:
            self._source.close()
            raise

    def close(self) -> None:
        """Drop the copy."""
        self._source.close()

    def identify(self) -> tuple[str, int]:
        """Return the cluster's system identifier and its timeline."""
        return self._source.identify()

    def ids(self, outbox: Outbox) -> Iterator[str]:
        """Yield the ids of all rows that `rows` yields. Raises what it does."""
        for row in self.rows():
            try:
                yield outbox.event(row).id
            except PoisonEvent as poison:
                yield poison.event_id

    def rows(self) -> Iterator[Row]:
        """Yield all rows that are committed now and that the slot has not confirmed, in the order of their commits.

        Raises PostgresUnavailable after a long silence, PostgresError when the WAL cannot be decoded.
        """
        ledger = Ledger()
        prefix = self._settings.outbox.messages
        transactions = Transactions(
            self._settings.outbox.qualified_name, ledger, children=self._oids, prefixes=Prefixes(prefix)
        )
        end = self._source.flushed()
        self._source.start(self._name, self._settings.postgres.publication, binary=False, messages=prefix is not None)
        now = time.monotonic()
        silent_at, ask_at, reached = now + _SILENCE_SECONDS, now, 0
        while True:
            frames = self._source.read()
            now = time.monotonic()
            if now >= silent_at:
                raise PostgresUnavailable(f"the copy of the slot made no progress for {_SILENCE_SECONDS:g} s")
            if now >= ask_at:  # the answer says how far it is; and this prevents wal_sender_timeout
                self._source.write(status_update(LSN(0), time.time(), reply_requested=True))
                ask_at = now + _ASK_SECONDS
            for frame in frames:
                if frame[:1] == KEEPALIVE:
                    if (wal_end := keepalive(frame).wal_end) >= end:
                        return
                    if wal_end > reached:
                        reached, silent_at = wal_end, now + _SILENCE_SECONDS
                    continue
                silent_at = now + _SILENCE_SECONDS
                if frame[:1] != XLOG_DATA:
                    continue
                message = decode(frame, XLOG_HEADER_SIZE)
                if isinstance(message, Begin) and message.commit_lsn >= end:
                    return
                row = transactions.feed(message)
                if row is not None:
                    row.transaction.report(None, None)
                    yield row
            ledger.settle()
            if not frames:
                self._source.wait(_LOOK_SECONDS)


class _Source(Source):
    """A replication connection: it runs SQL as well, and its temporary slots are dropped with it."""

    def copy(self, slot: str, name: str) -> LSN:
        """Copy a slot; return its confirmed LSN."""
        statement = f"select lsn from pg_copy_logical_replication_slot('{slot}', '{name}', true)"
        result = self._command(statement.encode(), pq.ExecStatus.TUPLES_OK)
        return LSN.parse((result.get_value(0, 0) or b"").decode())

    def flushed(self) -> LSN:
        """Return an end of the WAL that is flushed and behind everything that is visible now.

        Unflushed WAL is not streamed, but transactions of asynchronous commits are visible before it is flushed. The
        server may not flush the last page for long; after a commit of its own, the WAL writer does within a second. A
        logical message would be flushed at once, but every other slot gets it, and some tasks of Debezium fail of it.
        """
        end = self._lsn("pg_current_wal_insert_lsn()")
        if self._lsn("pg_current_wal_flush_lsn()") < end:
            self._command(b"select pg_current_xact_id()", pq.ExecStatus.TUPLES_OK)
        return end

    def _lsn(self, expression: str) -> LSN:
        result = self._command(f"select {expression}".encode(), pq.ExecStatus.TUPLES_OK)
        return trimmed(LSN.parse((result.get_value(0, 0) or b"").decode()))


def lost(connection: Conn, slot: str) -> str:
    """Return why the slot is lost; empty when it is not. Raises PostgresError for a slot of another database."""
    found = slot_health.read(connection, slot)
    if found is not None and not found.here:
        raise PostgresError(
            f"replication slot {slot!r} belongs to database {found.database!r}", hint="check [postgres] dsn and slot"
        )
    return (slot_health.problem(slot, found) or ("", ""))[0]


def passes(connection: Conn, slot: str, end: LSN, seconds: float) -> LSN | None:
    """Wait until an active slot has confirmed everything before `end`; return its confirmed LSN."""
    deadline = time.monotonic() + seconds
    while True:
        found = next((one for one in slots.find(connection) if one.name == slot), None)
        if found is None or found.confirmed is None:
            return None
        if found.confirmed >= end or found.active_pid is None or time.monotonic() >= deadline:
            return found.confirmed
        time.sleep(_LOOK_SECONDS)


def wal_end(connection: Conn) -> LSN:
    """Return the insert position of the WAL, flushed or not."""
    ((lsn,),) = query(connection, "reading the WAL's end", "select pg_current_wal_insert_lsn()::text")
    return trimmed(LSN.parse(lsn))


def trimmed(lsn: LSN) -> LSN:
    """Return an end of the WAL without the header of an empty page: no reader gets behind such a header."""
    rest = lsn % _PAGE
    return LSN(lsn - rest) if rest in _PAGE_HEADERS else lsn


def waits_for_standbys(connection: Conn) -> bool:
    """Return whether transactions are committed and streamed, but invisible until a standby confirms them."""
    found = query(
        connection, "reading the sessions", "select 1 from pg_stat_activity where wait_event = 'SyncRep' limit 1"
    )
    return bool(found)

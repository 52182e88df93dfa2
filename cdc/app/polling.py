"""Opens sessions without a slot: a relay of the outbox table takes its place."""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from cdc.app.connections import Servers, ordering
from cdc.app.outbox import outbox_of
from cdc.app.reaching import Reached
from cdc.background import Task
from cdc.config.settings import Settings
from cdc.delivery.ports import Batches, Ends
from cdc.delivery.positions import RelayMark, SlotRecord
from cdc.delivery.slot_memory import resumable
from cdc.errors import KafkaUnavailable, PostgresError, SlotActive
from cdc.kafka import positions
from cdc.lsn import LSN
from cdc.polling.numbers import Numbers, next_epoch
from cdc.polling.reader import Reader
from cdc.polling.schedule import LEASE_SECONDS, TRUST_SECONDS, Lease
from cdc.postgres import catalog, defects, polling_defects, slot_health
from cdc.postgres.connection import LONG_SECONDS, Conn, connect, query
from cdc.postgres.relay import SHAPE, Relay, RelayConnection, RelayRow, RowSource
from cdc.postgres.relay_thread import Heart, RelaySource
from cdc.postgres.relay_watch import RelayWatch
from cdc.records.headers import stream_id
from cdc.replication.frames import EPOCH_OFFSET_MS
from cdc.replication.messages import Column, Relation
from cdc.replication.publication import NONE, PUBLICATION, TABLE, TABLE_OID
from cdc.replication.values import TIMESTAMPTZ, has_binary_decoder

_TIMELINE: Final = 1  # a relay has none
_COMMITTED: Final = "pg_xact_commit_timestamp"
"""The column in which rows have the time of their commit; the table has none of this name."""
_SILENT_LOCKS: Final = 140000  # since then the server ends a session that is silent
_INIT: Final = "run: cdc-publisher outbox init --polling"
_RESET: Final = (
    "if this database is to be published, run: cdc-publisher outbox init --polling --reset; if it is a copy, point"
    " [postgres] dsn to the original"
)


class PollingServers(Servers):
    """Opens sessions between a relay and Kafka: see `cdc.delivery.ports.Servers`."""

    def __init__(
        self, settings: Settings, skipped: Collection[str] = (), reaching: Task[Reached] | None = None
    ) -> None:
        super().__init__(settings, skipped, reaching)
        self._lease = Lease()
        self._ticks = 0  # of earlier sessions
        self._reader: Reader | None = None  # of the last one
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    def open(self, stack: contextlib.ExitStack, *, text: bool) -> Ends:
        """Open one session; SlotActive is raised while another process holds the relay."""
        settings = self._settings
        if self._reader:
            self._ticks, self._reader = self._ticks + self._reader.ticks, None
        remembered = self._reach()
        stack.callback(remembered.close)
        writer = stack.enter_context(contextlib.closing(positions.Writer(settings)))
        self._topics.renew()
        table, name = settings.outbox.qualified_name, settings.postgres.slot
        with contextlib.ExitStack() as opening:
            heart = RelayConnection(connect(settings.postgres.dsn, application_name="cdc-publisher relay"), table, name)
            opening.callback(heart.close)
            definition, columns = _inspect(heart.connection, settings, text=text)
            row = self._row(heart)
            direct = heart.direct
            locked = self._seize(heart, row, direct=direct)
            if not self._remembers:
                self._prepare()
            keys, key_type = catalog.key_form(heart.connection, settings)
            mark = SlotRecord(
                row.id,
                _TIMELINE,
                name,
                row.confirmed,
                definition,
                ordering(settings, keys, key_type),
                cluster=self._reached.cluster_id,
            )
            # Not behind the transaction that a killed holder has left open: its successor aborts it, below.
            known = remembered.memory(mark.key, waits=False).record
            epoch = next_epoch(row.holding.epoch, known.relay.epoch if known and known.relay else 0)
            if not heart.take(row, epoch, self._holder, locked=locked):
                raise SlotActive("another process has just taken over the relay")
            beating = Heart(heart, listens=direct)
            # Its lock goes last: another process reads then what Kafka has.
            stack.callback(beating.stop)
            opening.callback(beating.stop)
            rows = connect(
                settings.postgres.dsn, statement_seconds=LONG_SECONDS, application_name="cdc-publisher relay rows"
            )
            relay = Relay(rows, table, name, columns)
            opening.callback(relay.close)
            relay.epoch, relay.last = epoch, row.last
            outbox = outbox_of(
                settings, stream_id(row.id, _TIMELINE, name), keys, time=_COMMITTED if columns.commits else None
            )
            # In exactly-once this ends what an earlier holder has begun: only then Kafka's record is the last one.
            kafka = self._kafka(stack, mark, outbox, writer, floors=known.since if known else None)
            memory = remembered.memory(mark.key)
            if _begun_with(memory.record) != _begun_with(known):
                raise KafkaUnavailable("Kafka has a newer record of the relay, which was behind an open transaction")
            begun = resumable(memory.record, settings.delivery.guarantee, relay.has_tick)
            progress = begun or row.progress
            reader = Reader(
                relay,
                Numbers(epoch),
                progress,
                stored=row.progress,
                confirmed=row.confirmed,
                cleared=row.cleared if settings.outbox.published == "delete" else None,
                poll_seconds=settings.postgres.poll_seconds,
                now=time.monotonic(),
                taken=int(time.time() * 1_000_000) - EPOCH_OFFSET_MS * 1000,
            )
            source = RelaySource(relay, beating, reader, progress)
            opening.pop_all()
            stack.callback(source.close)
        before = self._ticks
        self._reader = reader
        watch = RelayWatch(settings, lambda: Batches(before + reader.ticks, reader.rows, reader.seconds))
        stack.callback(watch.stop)
        mark = replace(mark, relay=RelayMark(epoch, progress))

        def begin(record: SlotRecord) -> None:
            writer.write(record.key, record.encode())
            source.begin()

        return Ends(
            **kafka,
            source=source,
            sentinel=watch,
            slot=mark,
            remembered=lambda: memory,
            wal_end=Numbers(epoch).fresh,
            used=row.last > 0,
            timelines={},
            wal_sender_timeout=TRUST_SECONDS,
            binary=columns.binary,
            progress=source.progress,
            resumes=begun is not None,
            begin=begin,
        )

    def taken(self) -> bool:
        """Return whether another process holds the relay. Raises CdcError."""
        settings = self._settings
        connection = connect(settings.postgres.dsn, application_name="cdc-publisher standby")
        with contextlib.closing(
            RelayConnection(connection, settings.outbox.qualified_name, settings.postgres.slot)
        ) as relay:
            row = relay.row()
            if row is None:
                return False  # which opening says
            return not self._lease.free(row.holding, time.monotonic(), lock_held=relay.is_locked(row.id))

    def _row(self, heart: RelayConnection) -> RelayRow:
        """Return the relay as it is. Raises PostgresError where there is none that this program may hold."""
        settings = self._settings
        shown = defects.shown(settings.outbox.qualified_name)
        row = heart.row()
        if row is None:
            raise PostgresError(f"there is no relay {settings.postgres.slot!r} for table {shown}", hint=_INIT)
        if problem := heart.restored():
            raise PostgresError(f"the relay {settings.postgres.slot!r} is not of this database: {problem}", hint=_RESET)
        if row.handover is not None:
            self._check_handover(heart.connection, row.handover)
            heart.hand_over()
        return row

    def _check_handover(self, connection: Conn, until: str) -> None:
        """Raise an error unless the slot from before has confirmed all that it is to publish."""
        name = self._settings.postgres.slot
        found = slot_health.read(connection, name)
        if found is None or found.confirmed is None:
            raise PostgresError(
                f"the relay {name!r} follows a replication slot of this name, which was to publish everything up to"
                f" {until} and does not exist any more",
                hint="run: cdc-publisher outbox init --polling --reset --since TIME",
            )
        if found.confirmed < LSN.parse(until):
            raise PostgresError(
                f"replication slot {name!r} stands at {found.confirmed}, and has to publish everything up to {until}"
                " before the relay begins",
                hint='let the publisher with [postgres] source = "slot" run until then',
            )

    def _seize(self, heart: RelayConnection, row: RelayRow, *, direct: bool) -> bool:
        """Return whether this connection has the lock of the relay. Raises SlotActive while it is another's."""
        holding, locked = row.holding, False
        if direct and heart.connection.info.server_version >= _SILENT_LOCKS:
            locked = heart.lock(row.id, LEASE_SECONDS)
            held = not locked
        else:
            held = heart.is_locked(row.id)
        own = holding.holder == self._holder and not held
        if not (own or self._lease.free(holding, time.monotonic(), lock_held=held)):
            raise SlotActive(f"the relay is held by {holding.holder or 'a session that has its lock'}")
        return locked


def _begun_with(record: SlotRecord | None) -> tuple[object, ...]:
    """Return what a session takes from Kafka before it is the only one."""
    return (record.relay and record.relay.epoch, record.since) if record else ()


def _inspect(connection: Conn, settings: Settings, *, text: bool) -> tuple[dict[str, str], RowSource]:
    """Return what the stream depends on, and how rows are read. Raises PostgresError for a table that is no outbox."""
    table = settings.outbox.qualified_name
    ((version, standby, commits, oid, shape),) = query(
        connection,
        "reading settings",
        f"""
        select current_setting('server_version_num')::int, pg_is_in_recovery(),
               current_setting('track_commit_timestamp')::bool, c.oid::int8, {SHAPE}
        from (values (1)) one left join (
            pg_class c join pg_namespace n on n.oid = c.relnamespace and n.nspname = %s
        ) on c.relname = %s
        """,
        *table,
    )
    for defect in (defects.version(version), defects.standby(standby)):
        if defect:
            raise defect.error()
    present = catalog.table_columns(connection, table)
    needed = settings.needed(list(present or ()))
    if defect := polling_defects.first(connection, settings) or catalog.table_defect(
        connection, settings, present, needed
    ):
        raise defect.error()
    assert present is not None
    binary = not text and all(has_binary_decoder(present[name][0]) for name in settings.read_as_text(list(present)))
    columns = [Column(0, name, present[name][0], -1) for name in needed]
    timed = commits and settings.record.time_column is None
    if timed:
        columns.append(Column(0, _COMMITTED, TIMESTAMPTZ, -1))
    relation = Relation(oid, *table, "d", tuple(columns))
    definition = {TABLE: ".".join(table), TABLE_OID: str(oid), PUBLICATION: NONE}
    return definition, RowSource(relation, binary, timed, shape)

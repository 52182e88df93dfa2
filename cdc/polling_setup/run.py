"""`outbox init --polling`: what it changes, in an order in which it can be killed and run again.

1. The statements of `cdc.polling_setup.plan`, in one transaction: from its end on, each new row has a number.
2. The ends of the topics: what is sent from here on is behind them.
3. The row of the relay, with what counts as sent. Rows that are to be sent are numbered in the same transaction.
   Where a slot publishes the outbox, it also notes the end of the WAL: all that its snapshot sees was committed before.
4. The record in `cdc.positions`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from psycopg import sql

from cdc.config.settings import Settings
from cdc.delivery.positions import SlotRecord
from cdc.errors import ConfigError, PostgresError, SlotLost
from cdc.kafka import positions
from cdc.kafka.event_topics import EventTopics
from cdc.lsn import LSN
from cdc.polling_setup import plan, rows
from cdc.postgres import defects, numbers, outbox_table, polling_defects, relay_facts, slot_health
from cdc.postgres import polling_table as wanted
from cdc.postgres.connection import Conn, converting, query
from cdc.postgres.relay_facts import Relay, unconfirmed
from cdc.purge.age import TIMES

RowsOfBefore = Literal["published", "send"]

_DOING: Final = "preparing the outbox for polling"
_TIMELINE: Final = 1
HEARTBEATS_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator decides."""

    rows: RowsOfBefore | None = None
    adopt: bool = False
    reset: bool = False
    since: int | None = None  # unix milliseconds: with reset, rows since then are to be sent, and no others
    roles: tuple[str, ...] = ()


class Setup:
    """One run. `say` reports each thing that was done."""

    def __init__(self, connection: Conn, settings: Settings, options: Options, say: Callable[[str], None]) -> None:
        self._connection = connection
        self._settings = settings
        self._options = options
        self._say = say
        self._table = settings.outbox.qualified_name
        self._name = settings.postgres.slot

    def statements(self) -> list[str]:
        """Return what would be run first, and as a comment what follows. Raises PostgresError and ConfigError."""
        found = plan.missing(self._connection, self._settings) + self._grants()
        if not relay_facts.exists(self._connection, self._settings):
            found.append(f"-- then outbox init --polling writes the row of relay {self._name} into {wanted.RELAY}")
        return found

    def run(self) -> None:
        """Prepare the outbox. Raises PostgresError, ConfigError and KafkaError."""
        statements = plan.missing(self._connection, self._settings)
        first = not relay_facts.exists(self._connection, self._settings)
        self._refuse_another_relay(first=first)
        if first and (self._options.reset or self._options.adopt):
            self._say(f"there is no relay {self._name} yet, so that there is nothing to reset or adopt")
        moved = first and self._has_slot()
        if moved and (problem := slot_health.problem(self._name, slot_health.read(self._connection, self._name))):
            raise SlotLost(*problem)
        choice = self._rows_of_before() if first else None
        outbox_table.execute(self._connection, statements)
        for line in _summary(statements, self._settings):
            self._say(line)
        outbox_table.execute(self._connection, self._grants())
        for role in self._options.roles:
            self._say(f"granted role {role} what the relay needs")
        if first:
            self._begin(choice, moved=moved)
        else:
            if self._options.reset:
                self._reset()
            if self._options.adopt:
                self._adopt()
            self._check_record()
        if not (statements or first or self._options.roles or self._options.reset or self._options.adopt):
            self._say(f"table {defects.shown(self._table)} and relay {self._name} are prepared already")
        if defect := polling_defects.first(self._connection, self._settings):
            raise defect.error()

    # --- before anything is changed

    def _refuse_another_relay(self, *, first: bool) -> None:
        if not first and (defect := polling_defects.relay_defect(self._connection, self._settings)):
            raise defect.error()
        if names := relay_facts.others(self._connection, self._settings):
            raise PostgresError(
                f"table {defects.shown(self._table)} has the relay {names[0]!r} already, and one relay would delete"
                " what the other has not sent",
                hint=f'set [postgres] slot = "{names[0]}"; or delete its row from {wanted.RELAY}',
            )

    def _has_slot(self) -> bool:
        return bool(
            query(
                self._connection,
                "reading the slot",
                "select from pg_replication_slots where slot_name = %s and database = current_database()",
                self._name,
            )
        )

    def _rows_of_before(self) -> RowsOfBefore | None:
        """Return what to do with the rows that are there; None where there are none."""
        options, outbox = self._options, self._settings.outbox
        slot = self._has_slot()
        if slot and options.rows == "send":
            raise PostgresError(
                f"replication slot {self._name!r} publishes the rows that are there",
                hint="leave out --rows; or drop the slot first, with cdc-publisher slot drop",
            )
        if slot and not self._settings.kafka.get("bootstrap.servers"):
            raise ConfigError(
                f"the move from replication slot {self._name!r} needs the ends of the topics",
                hint='set [kafka] "bootstrap.servers"',
            )
        if not rows.any_of_before(self._connection, self._settings):
            return None
        if options.rows is None and not slot:
            raise ConfigError(
                f"table {defects.shown(self._table)} has rows: are they published, or to be sent?",
                hint="run: cdc-publisher outbox init --polling --rows published (or: --rows send)",
            )
        if "published" not in outbox.model_fields_set:
            raise ConfigError(
                f"table {defects.shown(self._table)} has rows, and the relay deletes rows once they are published",
                hint='set [outbox] published = "delete" if it may, or "mark" to keep them',
            )
        return options.rows or "published"

    def _grants(self) -> list[str]:
        delete = self._settings.outbox.published == "delete"
        return [each for role in self._options.roles for each in wanted.grants(self._table, role, delete=delete)]

    # --- the relay

    def _begin(self, choice: RowsOfBefore | None, *, moved: bool) -> None:
        """Write the row of the relay."""
        ends = self._ends()
        end = None
        with converting(_DOING), self._connection.transaction():
            if choice == "send":
                by = rows.order(
                    self._connection, self._settings, rows.number_of_before(self._connection, self._settings)
                )
                count = rows.number_before(self._connection, self._settings, by)
                self._say(f"{count} rows are to be sent, in the order of their {by.kind}")
                sent = wanted.NOTHING
            else:
                sent = "" if moved else wanted.ROWS_OF_BEFORE
            self._insert(sent)
            if moved:
                # A later statement: rows that the snapshot of the row sees were committed before this LSN. In the same
                # transaction, as a relay without it would not wait for the slot.
                statement = sql.SQL(
                    "update {} set handover = pg_current_wal_insert_lsn() where relay = %s returning handover"
                )
                ((end,),) = self._connection.execute(statement.format(self._relay()), [self._name]).fetchall()
        self._say(f"created relay {self._name}")
        self._say(
            "without a slot, rows that are deleted or truncated in their transaction, or before a query sees them, are"
            " not published"
        )
        if choice == "published":
            kept = "deletes" if self._settings.outbox.published == "delete" else "keeps"
            self._say(f"rows of before count as published: the relay {kept} them")
        if end is not None:
            self._say(
                f"replication slot {self._name} publishes until it has confirmed {end}: stop the publisher then, and"
                ' start it with [postgres] source = "polling"'
            )
        self._write_record(ends)

    def _insert(self, sent: str) -> None:
        """Insert the row of the relay; without a snapshot, all that is visible now counts as sent."""
        statement = sql.SQL(
            "insert into {} (relay, id, outbox, confirmed_snapshot, cleared_snapshot, first_number)"
            " select %s, gen_random_uuid(), %s, {}, %s::pg_snapshot, coalesce(pg_sequence_last_value(%s), 0)"
            " on conflict (relay) do nothing"
        ).format(self._relay(), sql.SQL("{}::pg_snapshot").format(sql.Literal(sent)) if sent else _NOW)
        sequence = numbers.sequence_name(self._table)
        self._connection.execute(statement, [self._name, defects.name(*self._table), wanted.NOTHING, sequence])

    def _ends(self) -> Mapping[str, Mapping[int, int]] | None:
        if not self._settings.kafka.get("bootstrap.servers"):
            return None
        return EventTopics(self._settings).ends()

    def _write_record(self, ends: Mapping[str, Mapping[int, int]] | None) -> None:
        """Note the ends of the topics in Kafka, where nothing is read from before them."""
        if ends is None:
            return
        relay = relay_facts.require(self._connection, self._settings)
        record = SlotRecord(relay.id, _TIMELINE, self._name, LSN(0), {}, {}, since=ends)
        positions.ensure(self._settings)
        if positions.remembered(self._settings, record.key).record is None:
            positions.write(self._settings, record.key, record.encode())
            self._say(f"noted the ends of {len(ends)} topics in {self._settings.topics.positions}")

    def _check_record(self) -> None:
        """Write the record where an earlier run was killed before, or had no Kafka; nothing was sent then."""
        relay = relay_facts.require(self._connection, self._settings)
        if relay.epoch == 0:
            self._write_record({} if relay.handover else self._ends())

    # --- strays, and a database that was restored

    def _adopt(self) -> None:
        relay = relay_facts.require(self._connection, self._settings)
        with converting(_DOING), self._connection.transaction():
            count = rows.adopt(self._connection, self._settings, relay.cleared)
        self._say(f"adopted {count} strays: they are rows to be sent")

    def _reset(self) -> None:
        """Give the relay another id, and make what is not confirmed rows to be sent."""
        relay = relay_facts.require(self._connection, self._settings)
        if relay.holder is not None and self._is_held(relay):
            raise PostgresError(f"relay {self._name!r} is run by {relay.holder}", hint="stop it first")
        with converting(_DOING), self._connection.transaction():
            # The first statement: what commits after it is not seen, and so is to be sent.
            ((now,),) = self._connection.execute("select pg_current_snapshot()::text").fetchall()
            lock = sql.SQL("select from {} where relay = %s for update").format(self._relay())
            self._connection.execute(lock, [self._name])
            self._follow_numbers()
            confirmed = self._confirmed(relay)
            settled = rows.settle(self._connection, self._settings, confirmed, now)
            count = rows.renumber_unconfirmed(self._connection, self._settings, confirmed)
            ticks = sql.SQL("delete from {} where relay = %s").format(sql.Identifier(self._table[0], wanted.TICKS))
            self._connection.execute(ticks, [self._name])
            update = sql.SQL(
                "update {} set id = gen_random_uuid(), holder = null, locked = false, epoch = 0, last_batch = 0,"
                " heartbeat = 0, confirmed_batch = 0, confirmed_snapshot = %s::pg_snapshot, partly_snapshot = null,"
                " partly_until = null, cleared_snapshot = %s::pg_snapshot, handover = null where relay = %s"
            ).format(self._relay())
            self._connection.execute(update, [now, wanted.NOTHING, self._name])
        self._say(f"relay {self._name} has a new id; {count} rows are to be sent, {settled} published rows are settled")
        self._write_record({} if self._settings.kafka.get("bootstrap.servers") else None)

    def _is_held(self, relay: Relay) -> bool:
        """Return whether a publisher runs the relay: it counts up its heartbeat every two seconds."""
        self._say(f"waiting {HEARTBEATS_SECONDS:g} s for a heartbeat of {relay.holder}")
        time.sleep(HEARTBEATS_SECONDS)
        return relay_facts.require(self._connection, self._settings).heartbeat != relay.heartbeat

    def _confirmed(self, relay: Relay) -> sql.Composed:
        """Return the condition for rows that were confirmed before the restore."""
        if self._options.since is not None:
            return sql.SQL("coalesce(o.{} < to_timestamp({}), false)").format(
                sql.Identifier(self._age_column()), sql.Literal(self._options.since / 1000)
            )
        seen = sql.SQL("not {}").format(unconfirmed(relay, "o"))
        if not self._is_dump():
            return seen
        # In a dump, rows that were written here have the transaction that wrote them; restored ones have not.
        here = sql.SQL("o.xmin::text = (o.cdc_tx::text::numeric % 4294967296)::text")
        return sql.SQL("({} and not {})").format(seen, here)

    def _is_dump(self) -> bool:
        """Return whether the ticks were written by another transaction than the one that they name."""
        statement = sql.SQL(
            "select xmin::text = (xid::text::numeric %% 4294967296)::text from {} where relay = %s"
            " order by batch desc limit 1"
        ).format(sql.Identifier(self._table[0], wanted.TICKS))
        found = self._connection.execute(statement, [self._name]).fetchall()
        return found == [(False,)]

    def _follow_numbers(self) -> None:
        """Raise the sequence above all numbers of the table: a copy may have brought rows without it."""
        statement = sql.SQL(
            "select setval({name}, greatest(max(cdc_seq), pg_sequence_last_value({name}))) from {table} having"
            " max(cdc_seq) > coalesce(pg_sequence_last_value({name}), 0)"
        ).format(name=sql.Literal(numbers.sequence_name(self._table)), table=sql.Identifier(*self._table))
        self._connection.execute(statement)

    def _age_column(self) -> str:
        present = polling_defects.shape(self._connection, self._table).present
        names = [name for name, (oid, _) in present.items() if oid in TIMES]
        column = "created_at" if "created_at" in names else next(iter(names), None)
        if column is None:
            raise PostgresError(f"table {defects.shown(self._table)} has no column with a time, which --since needs")
        return column

    def _relay(self) -> sql.Identifier:
        return sql.Identifier(self._table[0], wanted.RELAY)


_NOW: Final = sql.SQL("pg_current_snapshot()")


def _summary(statements: list[str], settings: Settings) -> list[str]:
    """Return what was made, a line each."""
    lines = [
        f"created {' '.join(statement.split()[1:3]).lower().replace(chr(34), '')}"
        for statement in statements
        if statement.startswith("CREATE TABLE")
    ]
    table = settings.outbox.table
    if any("ADD COLUMN" in statement for statement in statements):
        lines.append(f"added columns {wanted.TX_COLUMN} and cdc_seq to table {table}")
    if any(statement.startswith("CREATE TRIGGER") for statement in statements):
        lines.append(f"created trigger {defects.STAMP} on table {table}")
    return lines

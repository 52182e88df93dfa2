"""Faults of servers, networks, processes and operators. Each ends by itself, or is fixed by an operator."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cdc.errors import PostgresRefused, PostgresUnavailable
from cdc.kafka.readback.backwards import MARGIN_MS
from tests.simulation.kafka import Stored
from tests.simulation.postgres import Slot
from tests.simulation.sink import TOO_LARGE
from tests.simulation.table import Table
from tests.simulation.transactions import SimTransactionalSink
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.run import Run


class Misfortunes:
    """Each method that has no underscore is one, by its name in a plan."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._world = run.world
        self._pg = run.pg
        self._kafka = run.kafka
        self.busy_until = 0.0
        self.told: list[str] = []  # errors that may stop the program until an operator fixes the cause
        self.gaps: list[str] = []  # events that may have skipped rows, which must be reported to an operator

    def begin(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Let one happen."""
        self._world.note(name, *arguments)
        getattr(self, name)(*arguments)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self.busy_until = max(self.busy_until, self._world.now + seconds)
        self._world.at(seconds, act)

    # The process

    def crash(self, after: bool) -> None:
        self._world.kill(after=after)

    def _unheard(self) -> None:
        """One side does not know that the other is gone, for as long as its patience lasts."""
        self._later(40.0 + 1.6 * self._pg.wal_sender_timeout, lambda: None)

    def power_off(self) -> None:
        self._unheard()
        self._run.powered_off = True
        self._world.kill(after=False)

    def terminate(self) -> None:
        self._run.process.stop.set()

    def reload(self) -> None:
        self._run.process.reload.set()

    def stall(self, seconds: float) -> None:
        self.busy_until = max(self.busy_until, self._world.now + seconds)
        self._world.freeze = lambda: self._run.stand_still(seconds)

    def take_over(self, seconds: float, kill: bool) -> None:
        self.busy_until = max(self.busy_until, self._world.now + seconds)
        self._world.freeze = lambda: self._run.second_instance(seconds, kill=kill)

    # PostgreSQL and the way to it

    def pg_crash(self, seconds: float) -> None:
        self._later(seconds, lambda: None)
        self._pg.crash(seconds)

    def pg_restart(self, seconds: float) -> None:
        self._later(seconds + 3, lambda: None)
        self._pg.shut_down(seconds)

    def fail_over(self, sync: bool) -> None:
        self._later(2.0, lambda: None)
        self._pg.fail_over(sync=sync)

    def checkpoint(self) -> None:
        self._pg.checkpoint()

    def sync_slot(self) -> None:
        self._pg.sync()

    def cut(self, heard: bool) -> None:
        if self._pg.slot and self._pg.slot.stream:
            self._pg.slot.stream.cut(heard=heard)
            if not heard:
                self._unheard()

    def black_hole(self) -> None:
        if self._pg.slot and self._pg.slot.stream:
            self._pg.slot.stream.deaf = True
            self._unheard()

    def freeze_walsender(self, seconds: float) -> None:
        stream = self._pg.slot.stream if self._pg.slot else None
        if stream:
            stream.frozen = True
            self._later(seconds, stream.thaw)

    def too_many_connections(self, seconds: float) -> None:
        self._pg.refusing = PostgresUnavailable("sorry, too many clients already")
        self._later(seconds, self._accept)

    def password_changes(self, seconds: float) -> None:
        self._pg.refusing = PostgresRefused("password authentication failed")
        self.told.append("password")
        self._later(seconds, self._accept)

    def _accept(self) -> None:
        self._pg.refusing = None

    # ALTER TABLE waits for writers, and writers for it

    def add_column(self, name: str = "") -> None:
        self._alone(lambda table: table.add(name))

    def drop_column(self, name: str) -> None:
        self._alone(lambda table: table.drop(name))

    def move_column(self, name: str) -> None:
        """Drop a column and add it again: it is the last one now, and may have another type than before."""

        def move(table: Table) -> None:
            if table.type_of(name) is not None:
                table.drop(name)
                table.add(name)

        self._alone(move)

    def retype_column(self, name: str, type_oid: int) -> None:
        self._alone(lambda table: table.retype(name, type_oid))

    def swap_columns(self, one: str = "id", other: str = "aggregateid") -> None:
        self._alone(lambda table: table.swap(one, other))

    def add_child(self, published: bool) -> None:
        """A table inherits from the outbox, and takes some of its rows."""
        if not self._pg.child:
            self.gaps.append("a table inherits from the outbox")
            self._pg.child, self._pg.child_published = True, published
            self._run.oracle.recounted = True

    def remove_child(self) -> None:
        """The table inherits no more: `SELECT FROM outbox` does not count its rows from now on."""

        def remove(_: Table) -> None:
            if not self._pg.child:
                return
            self.gaps.append("a table inherits from the outbox no more")
            self._pg.child = self._pg.child_published = False
            self._run.oracle.recounted = True
            for operation in (operation for tx in self._pg.committed for operation in tx.operations):
                if operation.row and operation.row.in_child:
                    operation.row.excused = True

        self._alone(remove)

    def _alone(self, change: Callable[[Table], None]) -> None:
        if any(operation.row for tx in self._pg.running for operation in tx.operations):
            self._later(0.05, lambda: self._alone(change))
            return
        change(self._pg.table)

    def clock_back(self, seconds: float) -> None:
        """The clock of PostgreSQL goes back, in all by less than the margin: it has later commits of earlier times."""
        self._pg.clock_offset = max(self._pg.clock_offset - seconds, 1 - MARGIN_MS / 1000)

    def jump(self, seconds: float) -> None:
        self._world.wall_offset += seconds

    # Operators: what skips rows must be heard of

    def drop_slot(self) -> None:
        self._pg.when_idle(self._drop_slot)

    def _drop_slot(self) -> None:
        self.gaps.append("slot dropped")
        self._pg.slot = None

    def create_slot_again(self) -> None:
        self._pg.when_idle(self.new_slot)

    def new_slot(self) -> None:
        self.gaps.append("slot made anew")
        pg = self._pg
        pg.abort()  # a new slot would see none of them
        pg.flush()
        if pg.slot and pg.slot.stream:
            pg.slot.stream.end("terminating connection due to administrator command")
        pg.slot = Slot(pg.lsn)
        pg.oracle.skip(pg.lsn)

    def advance_slot(self) -> None:
        self._pg.when_idle(self._advance_slot)

    def _advance_slot(self) -> None:
        pg = self._pg
        if pg.slot:
            self.gaps.append("slot advanced")
            pg.flush()
            pg.slot.confirmed = pg.slot.saved = pg.flushed
            pg.oracle.skip(pg.flushed)

    def invalidate_slot(self) -> None:
        if self._pg.slot and self._pg.up:
            self.gaps.append("slot invalidated")
            self._pg.slot.lost = True
            if self._pg.slot.stream:
                self._pg.slot.stream.end("terminating process to release the replication slot")

    def drop_publication(self) -> None:
        self.gaps.append("publication dropped")
        self._pg.publication = self._pg.published = False
        if self._pg.version < 18 and self._pg.slot:
            self._pg.slot.broken = True

    def leave_publication(self, seconds: float) -> None:
        self.gaps.append("table taken out of the publication")
        self._pg.published = False
        if seconds:
            self._later(seconds, self._return_to_publication)

    def _return_to_publication(self) -> None:
        if self._pg.up and self._pg.publication:
            self._pg.publish()
        else:
            self._later(0.1, self._return_to_publication)

    def rename_table(self) -> None:
        self.gaps.append("table renamed")
        self._pg.table.rename_table("outbox_old")

    def rename_while_away(self) -> None:
        """Rename the table and back while no session reads, with a row in between."""
        self._pg.when_idle(self._rename_while_away)

    def _rename_while_away(self) -> None:
        if self._run.over:
            return  # no session will read the row
        pg = self._pg
        for name in ("outbox_old", "outbox"):
            pg.table.rename_table(name)
            if name == "outbox_old":
                tx = pg.begin()
                pg.change(tx, "insert")
                pg.commit(tx)

    # Kafka

    def outage(self, seconds: float) -> None:
        self._later(seconds, lambda: None)
        self._kafka.outage(seconds)

    def change_leaders(self, seconds: float) -> None:
        self._later(seconds, lambda: None)
        self._kafka.change_leader(seconds)

    def slow_partition(self, topic: str, number: int, seconds: float) -> None:
        self._kafka.log((topic, number)).down_until = self._world.now + seconds
        self._later(seconds, lambda: None)

    def fatal(self) -> None:
        if self._run.process.sink:
            self._run.process.sink.fail("_FATAL: out of order sequence number")

    def refuse(self, topic: str, error: str, seconds: float) -> None:
        self._kafka.refusing[topic] = error
        self.told.append("refused")
        self._later(seconds, lambda: self._refuse_no_more(topic))

    def _refuse_no_more(self, topic: str) -> None:
        self._kafka.refusing.pop(topic, None)

    def lose_replies(self, rate: float, seconds: float) -> None:
        self._kafka.lost_replies = rate
        self._later(seconds, self._reply_again)

    def _reply_again(self) -> None:
        self._kafka.lost_replies = 0.0

    def no_topic(self, topic: str, seconds: float) -> None:
        self._kafka.missing.add(topic)
        self._later(seconds, lambda: self._kafka.missing.discard(topic))

    def expire(self, topic: str, share: float) -> None:
        """Delete the oldest records of a topic, so that they cannot be found any more."""
        seen = self._kafka.seen.get(topic, [])
        gone, kept = seen[: round(share * len(seen))], seen[round(share * len(seen)) :]
        self._kafka.seen[topic] = kept
        self._run.oracle.emptied(topic, {each.partition for each in gone} - {each.partition for each in kept})
        self._run.oracle.vanished(gone)
        self._run.process.knows = {entry for entry in self._run.process.knows if entry[0] != topic}

    def compact(self, topic: str, share: float, tombstones: bool) -> None:
        """Compact a topic by key."""
        self._vanish(self._kafka.compact(topic, share, tombstones=tombstones), topic)

    def compact_while_down(self, topic: str, share: float, tombstones: bool) -> None:
        """The process dies, and the cleaner runs before it is started again."""
        self._while_down(lambda: self.compact(topic, share, tombstones))

    def make_topic_anew(self, topic: str) -> None:
        """Delete a topic and create it again while no process runs."""
        self._while_down(lambda: self._make_topic_anew(topic))

    def _while_down(self, act: Callable[[], None]) -> None:
        """The process dies, and something happens before it is started again."""
        self._world.kill(after=False)
        self._run.once_down.append(act)

    def _make_topic_anew(self, topic: str) -> None:
        gone = self._kafka.delete(topic)
        self.gaps.append(f"topic {topic} made anew")
        if gone:
            self._kafka.untold.add(topic)
        self._vanish(gone, topic)
        self._run.oracle.emptied(topic, {each.partition for each in gone})

    def _vanish(self, gone: list[Stored], topic: str) -> None:
        """Records cannot be found any more, though they were delivered."""
        ids = {(topic, str(dict(each.record.headers)["id"])) for each in gone}
        self._run.process.knows -= ids
        self._run.oracle.vanished(gone)

    def unready(self, topic: str, number: int, batches: int) -> None:
        """A leader has too few followers, and turns some batches away."""
        self._kafka.log((topic, number)).unready = batches

    def forget_producers(self) -> None:
        self._kafka.forget_producers()

    def spoil_transaction(self) -> None:
        """The open transaction fails: the client library delivers nothing more of it, and does not report that."""
        if isinstance(self._run.process.sink, SimTransactionalSink):
            self._run.process.sink.spoil()

    def end_transaction(self) -> None:
        """The coordinator takes back a transaction that has been open for too long."""
        self._kafka.epoch += 1

    def crash_and_lose(self, topic: str, place: int) -> None:
        """The process dies, and Kafka loses a record that was not confirmed yet, but none of the later ones."""
        self._world.kill(after=False)
        self._take_away(topic, place)

    def crash_and_misplace(self, topic: str, place: int) -> None:
        """The process dies, and a record is in a partition where no consumer looks for its key."""
        self._world.kill(after=False)
        for number, record, _ in self._take_away(topic, place):
            other = (number + 1) % self._kafka.partitions
            self._kafka.seen[topic].insert(place, Stored(other, record, self._kafka.place(topic, other)))

    def crash_and_pretend(self, topic: str, place: int) -> None:
        """The process dies, and something else has the position of one of its records."""
        self._world.kill(after=False)
        for number, record, offset in self._take_away(topic, place):
            headers = [("id", "impostor"), *record.headers[1:]]
            self._kafka.seen[topic].insert(place, Stored(number, record._replace(headers=headers), offset))

    def _take_away(self, topic: str, place: int) -> list[Stored]:
        """The record at an offset, if it exists and does not count as delivered yet."""
        found = self._kafka.seen.get(topic, [])[place : place + 1]
        for taken in found:
            row = self._run.oracle.row(taken.record)
            slot = self._pg.slot
            if row.by_transaction or slot is None or row.tx.end_lsn <= max(slot.confirmed, self._run.process.confirmed):
                return []
            self._kafka.seen[topic].remove(taken)
            self._run.oracle.lost(taken.record)
        return found

    def limit(self, topic: str, size: int) -> None:
        self._kafka.limits[topic] = size
        self.told.append("limit")

    def schema_unknown(self, seconds: float) -> None:
        self._run.contracts.known_at = self._world.now + seconds
        self._later(seconds, lambda: None)

    # An operator arrives

    def mend(self, why: str) -> None:
        """The program has stopped and said so: put right what is wrong."""
        pg = self._pg
        if TOO_LARGE in why:
            raise Violation(f"C7: a record was sent that its topic does not take: {why}")
        if not (self.told or self.gaps or self._run.contracts_refuse()):
            raise Violation(f"I9: it stopped, and nothing is wrong: {why}")
        self._run.contracts.mended = not self._run.plan.dead_letters
        self._kafka.limits.clear()
        self._kafka.refusing.clear()
        pg.refusing = None
        pg.publish()
        pg.child_published = pg.child
        pg.abort()
        if pg.slot is None or pg.slot.lost or pg.slot.broken:
            self.new_slot()
        pg.table.rename_table("outbox")

    def accept(self, why: str) -> None:
        """Note the rows that the program reported as possibly lost, and let it resume from the slot's position."""
        if not self.gaps:
            raise Violation(f"I9: it stopped, and nothing was changed: {why}")
        self._pg.abort()  # no writes while the tables are compared
        self._pg.oracle.excuse()

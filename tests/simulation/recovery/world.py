"""One world of recovery: events are published, the slot is lost, and `recover` is called until it has ended."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Final

from cdc.config.settings import Settings
from cdc.delivery.positions import SlotRecord, differences
from cdc.delivery.reports import Positions
from cdc.errors import CdcError, RecoveryUnfinished, Temporary
from cdc.lsn import LSN
from cdc.outbox.columns import Columns
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.postgres import horizons
from cdc.purge.run import Purging
from cdc.records.encoding import Encoding
from cdc.records.headers import stream_id
from cdc.recovery.candidates import CandidateTable
from cdc.recovery.run import Recovery
from cdc.recovery.state import RecoveryOptions
from cdc.replication.horizon import BELOW, Horizon, Horizons, counting
from cdc.replication.messages import Column, Relation
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row as StreamRow
from tests.simulation.contracts import SimContracts
from tests.simulation.recovery.connection import COLUMNS, DEFINITION, SYSTEM, SimConnection
from tests.simulation.recovery.judge import Judge
from tests.simulation.recovery.plan import Plan, plan
from tests.simulation.recovery.ports import installed
from tests.simulation.recovery.server import Committed, SimServer
from tests.simulation.recovery.topics import SimTopics
from tests.simulation.world import Crash, Violation, World

SLOT: Final = "cdc_publisher"
KEY: Final = f"{SYSTEM}/{SLOT}"
_LIVES_AT_MOST: Final = 60
_NEEDED: Final = ("id", "aggregatetype", "aggregateid", "type", "payload")
SETTINGS: Final = Settings.model_validate(
    {"postgres": {"dsn": "postgresql://sim"}, "kafka": {"bootstrap.servers": "sim"}}
)


class RecoveryRun:
    """The director of one world."""

    def __init__(self, given: Plan, seed: str) -> None:
        self.plan = given
        self.world = World(f"recovery/{seed}", crashes=given.crashes)
        self.random = self.world.random("director")
        self.judge = Judge(ordered=given.ordered)
        self.server = SimServer(self.world, given.first_xid, given.keys, self.judge.committed)
        self.server.timed = given.timed
        self.topics = SimTopics(self.world, self.judge, compacted=given.compacted)
        self._dead = False
        self._busy = False  # other actors are at work: no process of ours may die in their calls
        self._quiet = False  # nothing else happens any more
        self._purges = Horizons()
        self._purge_generation = 0
        self.slot_losses = 0  # within recoveries

    # The calls of a process

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """What a call of the process runs in."""
        if self._busy:
            yield
            return
        if self._dead:
            raise Crash
        try:
            self.world.enter()
            self._others()
            yield
            self.world.leave()
        except Crash:
            self._dead = True
            raise

    def _others(self) -> None:
        """Let others act between two calls of the process."""
        if self._quiet:
            return
        self._busy = True
        try:
            chance = self.random.random()
            for _ in range(self.random.choice((0, 1, 1, 3))):
                self._write()
            if chance < 0.1:
                self.purge()
            elif chance < 0.11 and self.plan.compacted:
                self.topics.compact()
            elif chance < 0.115 and self.server.slot and self.slot_losses < 2:
                self.slot_losses += 1
                self.server.slot.lost = True
        finally:
            self._busy = False

    def _write(self) -> None:
        self.server.act(updates=self.plan.updates)

    # Purge

    def purge(self) -> None:
        """Delete the rows that are known to be published, by the checks of the real purge."""
        server = self.server
        connection = SimConnection(server, self.call)
        if self._purge_generation != server.generation:
            self._purges, self._purge_generation = Horizons(), server.generation
        with contextlib.closing(connection):
            self._purges.add(horizons.take(connection))  # type: ignore[arg-type]
            slot = server.slot
            horizon = self._purges.reached(LSN(slot.confirmed), float("inf")) if slot and not slot.lost else None
            if horizon is None or slot is None:
                return
            options = SimpleNamespace(accept_unknown=False)
            purging = SimpleNamespace(
                _definition=lambda: DEFINITION, _settings=SETTINGS, _connection=connection, _options=options
            )
            try:
                Purging._check(purging, LSN(slot.confirmed))  # type: ignore[arg-type]
            except CdcError:
                return
            seen = server.snapshot()
            below = partial(eval, compile(BELOW.format(next="next", xmin="xmin", horizon="horizon"), "below", "eval"))
            gone = [row.id for row in seen.rows
                    if below({"next": seen.next_xid, "xmin": row.xmin, "horizon": horizon.xid})]  # fmt: skip
            server.delete(gone)
            self._purges.forget(horizon)

    # The publisher

    def mark(self) -> SlotRecord:
        """The slot as it is."""
        assert self.server.slot
        return SlotRecord(SYSTEM, self.server.timeline, SLOT, LSN(self.server.slot.confirmed), DEFINITION, {})

    def create_slot(self) -> None:
        """Create the slot and its record, as `slot create` does."""
        start, seen = self.server.create_slot(self._write)
        assert self.server.slot
        self.server.slot.active = False
        horizon = Horizon(seen.xmin, LSN(start), self.server.now(), self.server.timeline, 0.0, 0, 0)
        self.topics.write(KEY, replace(self.mark(), horizons=(horizon,)).encode())

    def publish(self, most: int) -> None:
        """Stream so many transactions at the most, as a publisher does that dies after them. Raises Violation."""
        server, memory = self.server, self.topics.remembered(KEY)
        assert server.slot
        if memory.recovery is not None or memory.record is None:
            raise Violation("I9: the publisher cannot start")
        mark = self.mark()
        if changes := differences(mark, memory.record):
            raise Violation(f"I9: the publisher does not start: {changes}")
        ends = {number: LSN(end) for number, end in server.ends.items()}
        known = counting(memory.record.horizons, server.timeline, ends, LSN(server.lsn))
        record = replace(mark, horizons=known, recovered=memory.record.recovered)
        positions = Positions("positions", record, lambda _: None, 0.0)
        with contextlib.closing(SimConnection(server, self.call)) as connection:
            take = partial(horizons.take, connection, ("public", "outbox"))  # type: ignore[arg-type]
            positions.taken(take())
            stream = server.stream()[:most]
            for one in stream:
                self._send(one)
                if self.random.random() < 0.3:
                    positions.taken(take())
                if self.random.random() < 0.7:
                    self._confirm(positions, one.end_lsn)
            if len(stream) < most:
                self._confirm(positions, server.lsn)

    def _confirm(self, positions: Positions, lsn: int) -> None:
        slot = self.server.slot
        assert slot
        if report := positions.report(LSN(lsn), self.world.now, self.server.now()):
            self.topics.write(KEY, report.value)
            report.on_delivery(None, None)
        slot.confirmed = max(slot.confirmed, min(lsn, positions.confirmed))

    def _send(self, one: Committed) -> None:
        """Send the events of a transaction that no topic has."""
        relation = Relation(0, "public", "outbox", "d", tuple(Column(0, n, COLUMNS[n][0], -1) for n in _NEEDED))
        outbox = Outbox(
            stream_id(SYSTEM, self.server.timeline, SLOT), Columns(), TopicTemplate("outbox.event.{aggregatetype}")
        )
        contracts = SimContracts(self.world)
        encoding = Encoding(outbox, contracts, contracts)
        present = self.topics.ids()
        for index, row in enumerate(one.rows):
            data = CandidateTable.cells((row.id, "order", row.key, "Placed", row.id))
            transaction = Ledger().begin(LSN(one.commit_lsn), int(one.time * 1000))
            record = encoding.record(outbox.event(StreamRow(transaction, index, relation, data)))
            if row.id not in present:
                self.topics.append(record.key, record.timestamp, record.headers)
            else:
                self.judge.streamed_again(row.id, record.headers)

    # Losses and recoveries

    def lose(self, how: str) -> None:
        """Lose the slot."""
        server = self.server
        if how == "failover":
            self.judge.lost(server.fail_over(self.random.choice((0, 0, 1, 2, 5))))
        elif how == "lost" and server.slot:
            server.slot.lost = True
        else:
            server.slot = None

    def recover(self) -> None:
        """Call `recover` until it has ended, and whenever it was killed. Raises Violation."""
        for _ in range(_LIVES_AT_MOST):
            self._dead = False
            self.world.started()
            try:
                ended = self._recover()
            except Crash:
                ended = False
            finally:
                self.world.ended()
            if self.server.slot:
                self.server.slot.active = False  # its walsender ends
            if ended and self.server.slot and not self.server.slot.lost:
                return
        raise Violation("I7: the recovery does not end")

    def _recover(self) -> bool:
        try:
            with contextlib.closing(Recovery(SETTINGS, RecoveryOptions())) as recovery:
                if recovery.found.finished is None:
                    for _ in recovery.survey():
                        pass
                    for _ in recovery.heal():
                        pass
            return True
        except (Temporary, RecoveryUnfinished) as error:
            self.world.note("exit 75", str(error))
        except CdcError as error:
            self.world.note("exit 1", str(error))
            if "was lost again" not in str(error):
                raise Violation(f"I9: recover: {error}") from None
        return False

    def go(self) -> str | None:
        """Run to the end; return what was violated."""
        logging.disable(logging.CRITICAL)
        try:
            with installed(self):
                self._go()
        except Violation as error:
            return str(error)
        except Exception as error:  # any exception other than a CdcError
            return f"the program broke: {error!r}"
        finally:
            logging.disable(logging.NOTSET)
        return None

    def _go(self) -> None:
        self._busy = True
        self._steps(6)
        self.server.finish()
        before = self.server.committed[:]
        self.create_slot()
        for row in [row.id for one in before for row in one.rows]:
            self.judge.skip(row)
        for how in self.plan.losses:
            for _ in range(self.random.randint(1, 3)):
                self._steps(self.random.choice((3, 10, 25)))
                self.publish(self.random.choice((1, 3, 1000)))
                if self.random.random() < 0.3:
                    self.purge()
            self._steps(self.plan.backlog)
            self.lose(how)
            self._steps(self.plan.backlog)
            if self.plan.trims:
                self.topics.trim()
            self._busy = False
            self.recover()
            self._busy = True
        self._steps(5)
        self.server.finish()
        self.publish(1000)
        self.judge.ended(self.topics.last(), compacted=self.plan.compacted)

    def _steps(self, count: int) -> None:
        for _ in range(count):
            self._write()


def worlds(seeds: Iterable[int]) -> Iterator[tuple[str, str | None]]:
    """Run random worlds; yield their names, and what was violated."""
    for seed in seeds:
        yield f"recovery, seed {seed}", RecoveryRun(plan(seed), str(seed)).go()

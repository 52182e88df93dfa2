"""One world from beginning to end: a process that is started again whenever it dies, until everything is settled."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cdc.config.settings import Settings
from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE
from cdc.delivery.service import AHEAD, Service
from cdc.errors import CdcError, Temporary
from tests.simulation.contracts import SimContracts
from tests.simulation.kafka import SimKafka
from tests.simulation.misfortunes import Misfortunes
from tests.simulation.oracle import Oracle
from tests.simulation.plan import SWITCH, Plan, Transaction, Write
from tests.simulation.postgres import SimPg
from tests.simulation.process import Clock, Process
from tests.simulation.rows import PREFIX, Tx
from tests.simulation.servers import SessionSettings, SimServers, mark
from tests.simulation.world import Crash, Violation, World

_LOOK_SECONDS: Final = 0.2
BROKERS: Final = ("outage", "change_leaders", "lose_replies", "slow_partition", "no_topic", "schema_unknown", "jump")
"""Faults that a session outlives: it waits."""
ACCEPT: Final = "--accept-changes"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a world came to."""

    violation: str | None
    digest: str | None
    events: int
    seconds: float  # virtual
    rows: int
    duplicates: int
    lives: int
    calls: tuple[int, ...]  # of each life of a process
    trace: tuple[tuple[object, ...], ...] = ()


class Run:
    """The director of one plan."""

    def __init__(self, plan: Plan, seed: str, crashes: Iterable[tuple[int, bool]] = ()) -> None:
        self.plan = plan
        self.world = World(f"{plan.name}/{seed}", grain=plan.grain, crashes=crashes)
        self.random = self.world.random("director")
        self.oracle = Oracle(self.world, plan.partitions, dead_letters=plan.dead_letters, headers=plan.headers)
        self.pg = SimPg(self.world, self.oracle, version=plan.version, timeout=plan.timeout, tenant=bool(plan.headers))
        self.pg.flush_delay, self.pg.save_rate = plan.flush_delay, plan.save_rate
        self.kafka = SimKafka(self.world, self.oracle, partitions=plan.partitions, latency=plan.latency)
        self.contracts = SimContracts(self.world)
        self.process = Process(self.world, self.oracle)
        self.powered_off = False
        self.over = False
        self.once_down: list[Callable[[], None]] = []  # what happens as soon as no process runs
        self._accept_changes = False
        self._mended_at = float("-inf")
        self._lives = 0
        self._taken_over = False
        self._sessions = SessionSettings(
            self.world.random("sessions"),
            burst=plan.burst,
            keepalives=plan.keepalives,
            properties={**plan.kafka, "queue.buffering.max.messages": plan.room},
            dead_letters=plan.dead_letters,
            headers=plan.headers,
            sequence=plan.sequence,
        )
        self.misfortunes = Misfortunes(self)
        if plan.recorded:  # as `slot create` leaves it
            self.kafka.record(mark(self.pg))
        self._healed = self.world.now + plan.healed
        for transaction in plan.traffic:
            self.world.at(transaction.at, self._begin, transaction)
        for act in plan.acts:
            self.world.at(act.at, self.misfortunes.begin, act.name, act.arguments)
        self.world.at(plan.healed, self._look)

    # Writers

    def _begin(self, transaction: Transaction) -> None:
        pg = self.pg
        if not pg.up or pg.stopping_since is not None:
            self.world.at(0.5, self._begin, transaction)  # the shop tries again
            self._healed = max(self._healed, self.world.now + 0.6)
            return
        tx = pg.begin()
        if not transaction.hold:
            self._end(tx, transaction, transaction.writes)
            return
        half = (len(transaction.writes) + 1) // 2
        self._write(tx, transaction.writes[:half])
        self.world.at(transaction.hold, self._end, tx, transaction, transaction.writes[half:])

    def _write(self, tx: Tx, writes: tuple[Write, ...]) -> None:
        for write in writes:
            self.pg.change(tx, write.kind, write.count, write.key, write.aggregate, write.payload)

    def _end(self, tx: Tx, transaction: Transaction, writes: tuple[Write, ...]) -> None:
        self._write(tx, writes)
        if transaction.commits:
            self.pg.commit(tx)
        else:
            self.pg.rollback(tx)

    # The end

    def _look(self) -> None:
        """Whether all is settled; raises Violation when it takes too long."""
        now = self.world.now
        begun = max(self._healed, self.misfortunes.busy_until)
        slot, txs = self.pg.slot, self.oracle.txs
        ended = not self.pg.running and now > self._healed and self.pg.flushed_count == len(self.pg.committed)
        settled = slot is not None and (not txs or slot.confirmed >= txs[-1].end_lsn)
        if ended and settled and not self.oracle.missing():
            self.over = True
            self.process.stop.set()
        elif now > begun + self.plan.patience:
            missing = [row.number for row in self.oracle.missing()]
            at = slot.confirmed if slot else None
            raise Violation(
                f"I7: not settled {self.plan.patience:g} s after the last fault: missing {missing}, slot {at}"
            )
        self.world.at(_LOOK_SECONDS, self._look)

    # Processes

    def go(self, *, digest: bool = False, trace: bool = False) -> Outcome:
        """Run to the end."""
        violation = None
        began = self.world.now
        logging.disable(logging.CRITICAL)
        try:
            while not self.over:
                self._life()
                self.world.advance(0.05 + 0.5 * self.random.random())
                acts, self.once_down = self.once_down, []
                for act in acts:
                    act()
            self._judge()
        except Violation as error:
            violation = str(error)
        except Exception as error:  # any exception other than a CdcError
            violation = f"the program broke: {error!r}"
        finally:
            logging.disable(logging.NOTSET)
        world = self.world
        return Outcome(
            violation,
            world.digest() if digest else None,
            world.events + world.all_calls,
            world.now - began,
            len(self.oracle.rows),
            self.oracle.duplicates,
            self._lives,
            tuple(world.counts),
            tuple(world.trace) if trace else (),
        )

    def _judge(self) -> None:
        missing = self.oracle.missing()
        if missing:
            raise Violation(f"I1: rows {[row.number for row in missing]} are in no topic")
        self.oracle.newest(self.kafka.seen)
        if self._lives == 1 and all(act.name in BROKERS for act in self.plan.acts):
            if self.oracle.duplicates:
                raise Violation(f"I4: {self.oracle.duplicates} duplicates, although only brokers were at fault")
            if self.process.sessions > 1:
                raise Violation(f"C1: {self.process.sessions} sessions, although only brokers were at fault")

    def _life(self) -> None:
        """One process, from its start to its end."""
        self._lives += 1
        process = self.process = Process(self.world, self.oracle)
        if self.over:
            process.stop.set()
        self.world.started()
        self.world.note("start")
        accept, self._accept_changes = self._accept_changes, False
        process.accepts = accept
        if accept:
            self.oracle.excuse()  # what was skipped since the operator read the error is accepted too
            self.kafka.untold.clear()  # in the log
        guarantee = self.plan.guarantee
        if guarantee == SWITCH:
            guarantee = (EXACTLY_ONCE, AT_LEAST_ONCE)[self._lives % 2]
        process.ahead = AHEAD.records if guarantee == EXACTLY_ONCE else 0
        service = Service(
            _settings(self.plan, guarantee),
            self.contracts,
            SimServers(self.pg, self.kafka, process, self._sessions, exactly_once=guarantee == EXACTLY_ONCE),
            process.stop,
            process.reload,
            Clock(self.world),
            self.random.random,
            accept_changes=accept,
        )
        try:
            drained = service.run()
            self.world.note("end", drained)
            if drained and process.stopped_at is not None:
                self._clean(process.stopped_at)
        except Crash:
            self.world.note("crash")
            process.dead = True
            if self.powered_off:
                process.power_off()
                self.powered_off = False
            else:
                process.close()
        except Temporary as error:
            self.world.note("exit 75", str(error))
        except CdcError as error:
            self._stopped(process, str(error))
        finally:
            self.world.ended()

    def _stopped(self, process: Process, why: str) -> None:
        """An operator reads the error, fixes the cause, and starts the program again."""
        self.world.note("exit 1", why)
        self.kafka.untold = {topic for topic in self.kafka.untold if repr(topic) not in why}
        if ACCEPT in why:
            self.misfortunes.accept(why)
            self._accept_changes = True
        elif self._mended_at > process.started_at:
            pass  # it was open when another one stopped for the same reason
        else:
            self.misfortunes.mend(why)
        self._mended_at = self.world.now

    def _clean(self, sent: int) -> None:
        slot = self.pg.slot
        if slot and slot.confirmed < sent and self.pg.up:
            raise Violation(f"A16: a clean stop left the slot at {slot.confirmed}, and {sent} was delivered")

    def contracts_refuse(self) -> bool:
        """Whether a row is poison, so that the program may stop."""
        return any(row.poison for row in self.oracle.rows) and not self.contracts.mended

    # A process that stands still

    def stand_still(self, seconds: float) -> None:
        process = self.process
        process.frozen = True
        self.world.advance(seconds)
        process.frozen = False
        process.hindered_at = self.world.now

    def second_instance(self, seconds: float, *, kill: bool) -> None:
        """Freeze the process while another one takes over, and then let it resume."""
        if self.over or self._taken_over:
            return
        self._taken_over = True
        first = self.process
        first.frozen = True
        saved = self.world.suspend()
        self.world.at(seconds, self._end_second, first, kill)
        self._life()
        self.world.resume(saved)
        self.process, self._taken_over = first, False
        if first.accepts:
            self.oracle.excuse()  # what was changed meanwhile, too
        first.frozen = False
        first.hindered_at = self.world.now
        self._stop_if_over(first)

    def _stop_if_over(self, process: Process) -> None:
        if self.over:
            process.stop.set()

    def _end_second(self, first: Process, kill: bool) -> None:
        if self.process is first:
            return
        if kill:
            self.world.kill(after=False)
        else:
            self.process.stop.set()


_MADE: dict[tuple[object, ...], Settings] = {}


def _settings(plan: Plan, guarantee: str) -> Settings:
    """The settings of a plan."""
    key = plan.drain, plan.dead_letters, guarantee, plan.sequence
    made = _MADE.get(key)
    if made is None:
        plain = Settings()
        delivery = plain.delivery.model_copy(
            update={
                "drain_seconds": plan.drain,
                "on_poison": "dead-letter" if plan.dead_letters else "stop",
                "guarantee": guarantee,
                "sequence": plan.sequence,
            }
        )
        outbox = plain.outbox.model_copy(update={"messages": PREFIX})
        made = _MADE[key] = plain.model_copy(update={"delivery": delivery, "outbox": outbox})
    return made

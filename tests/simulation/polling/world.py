"""One world of a relay: writers, kills, frozen processes and failovers, until every row is in Kafka."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Final, cast

from cdc.config.settings import Settings
from cdc.delivery.deduplication import SentBefore
from cdc.delivery.ports import Ends
from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE, RelayMark, SlotRecord, latest
from cdc.delivery.reports import Batch, Positions
from cdc.delivery.slot_memory import Recognition, resumable
from cdc.errors import KafkaUnavailable, PostgresUnavailable
from cdc.lsn import LSN
from cdc.polling.numbers import Numbers, next_epoch
from cdc.polling.progress import Sent
from cdc.polling.reader import Handed, Reader
from cdc.records.partitioner import partition
from cdc.records.record import Record
from cdc.replication.settlement import Ledger
from tests.memory import MemoryTail, MemoryTails
from tests.simulation.polling.database import Database, Relay
from tests.simulation.world import Violation
from tests.unit import shop

TOPIC: Final = "outbox.event.order"
POSITIONS: Final = "cdc.positions"
PARTITIONS: Final = 2
KEYS: Final = ("a", "b", "c", "d")
_STEPS: Final = 260
_LAST_STEPS: Final = 4_000


class Delivered:
    """A record that the broker has."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


class Kafka:
    """A topic, and the record of the relay. In exactly-once only the last producer may send."""

    def __init__(self) -> None:
        self.log: list[list[Record]] = [[] for _ in range(PARTITIONS)]
        self.marks: list[bytes] = []
        self.producer = 0
        self.ids: set[str] = set()

    def append(self, record: Record) -> Delivered:
        log = self.log[partition(record.key or b"", PARTITIONS)]
        log.append(record)
        self.ids.add(_id(record))
        return Delivered(len(log) - 1)

    def tail(self, confirmed: LSN) -> MemoryTail:
        """What is read back: the records of the stream that are not confirmed."""
        tail = MemoryTail(PARTITIONS)
        for number, log in enumerate(self.log):
            for record in log:
                lsn, index = _order(record)
                if lsn >= confirmed:
                    tail.ids[number, lsn, index] = _id(record)
        return tail


def _id(record: Record) -> str:
    return str(dict(record.headers)["id"])


def _order(record: Record) -> tuple[int, int]:
    _, lsn, index = str(dict(record.headers)["cdc-position"]).split("-")
    return int(lsn, 16), int(index, 16)


class Life:
    """One session of one process."""

    def __init__(self, world: "Run", guarantee: str) -> None:
        self.world, self.kafka, database = world, world.kafka, world.database
        self.exactly_once = guarantee == EXACTLY_ONCE
        state, known = database.state, latest(world.kafka.marks)
        stored, confirmed, used = state.progress, state.confirmed, state.last > 0
        epoch = next_epoch(state.epoch, known.relay.epoch if known and known.relay else 0)
        self.relay = Relay(database, epoch, world.kafka.ids)
        world.kafka.producer += 1
        self.producer = world.kafka.producer
        begun = resumable(known, guarantee, self.relay.has_tick)
        progress = begun or stored
        self.numbers = Numbers(epoch)
        self.reader = Reader(
            self.relay,
            self.numbers,
            progress,
            stored=stored,
            confirmed=confirmed,
            cleared=state.cleared if world.deletes else None,
            poll_seconds=0.5,
            now=world.now,
            taken=shop.COMMIT_TIME,
        )
        self.sent = Sent(progress)
        ends = SimpleNamespace(
            slot=SlotRecord("relay", 1, "shop", confirmed, {}, {}, relay=RelayMark(epoch, progress)),
            progress=self.sent.at,
            resumes=begun is not None,
            used=used,
            timelines={},
            wal_end=self.numbers.fresh,
            tails=MemoryTails(**{TOPIC: world.kafka.tail(confirmed)}),
            dead_letters=None,
            hand_over=lambda record: world.kafka.marks.append(record.encode()),
            foreign=None,
        )
        settings = Settings.model_validate({"delivery": {"guarantee": guarantee}})
        before, record = Recognition(settings).sent_before(cast(Ends, ends), known)
        world.kafka.marks.append(record.encode())
        self.ledger = Ledger(confirmed)
        batch = Batch(4, 1 << 30, 0.3) if self.exactly_once else None
        self.positions = Positions(POSITIONS, record, self.ledger.fail, 0.2, batch, self.sent.at)
        self.session = shop.session(self.ledger, positions=self.positions, sent_before=before)
        self.before: SentBefore = before
        self.handed: deque[Handed] = deque()
        self.queue: deque[Record] = deque()
        self.status = LSN(0)

    def turn(self, random: Random) -> None:
        """Do one of the things that a session does."""
        act = random.choice(
            (self.reads, self.reads, self.takes, self.takes, self.reports, self.delivers, self.confirms)
        )
        act(random)

    def reads(self, random: Random) -> None:
        if random.random() < 0.1:
            self.reader.notified()
        handed, _ = self.reader.step(self.world.now, room=len(self.handed) < 4 and random.random() < 0.8)
        self.handed += handed

    def takes(self, random: Random) -> None:  # noqa: ARG002
        if self.handed:
            frames, part = self.handed.popleft()
            if part:
                self.sent.add(part)
            self.queue += self.session.receive(frames)

    def reports(self, random: Random) -> None:  # noqa: ARG002
        if record := self.session.confirmation.position(self.world.now, self.world.now):
            self.queue.append(record)

    def delivers(self, random: Random) -> None:
        if self.exactly_once:
            self._commits()
            return
        # Partitions are independent of each other, and each is in order.
        held = {number for number in range(PARTITIONS) if random.random() < 0.3}
        left: deque[Record] = deque()
        for record in self.queue:
            place = partition(record.key or b"", PARTITIONS)
            if record.topic == POSITIONS:
                self._mark(record)
            elif place in held:
                left.append(record)
            else:
                record.on_delivery(None, self.kafka.append(record))
                self.world.repeats |= self is not self.world.life
                if random.random() < 0.1:
                    held.add(place)
        self.queue = left

    def _commits(self) -> None:
        """Commit the transaction that a position ends, if there is one."""
        if self.producer != self.kafka.producer:
            raise KafkaUnavailable("fenced")
        ends = [at for at, record in enumerate(self.queue) if record.topic == POSITIONS]
        if not ends:
            return
        committed = [self.queue.popleft() for _ in range(ends[0] + 1)]
        for record in committed:
            if record.topic == POSITIONS:
                self._mark(record)
            else:
                record.on_delivery(None, self.kafka.append(record))

    def _mark(self, record: Record) -> None:
        assert record.value is not None
        self.kafka.marks.append(record.value)
        record.on_delivery(None, Delivered(len(self.kafka.marks)))

    def confirms(self, random: Random) -> None:  # noqa: ARG002
        lsn = self.session.confirmation.lsn
        if lsn > self.status:
            self.status = lsn
            self.reader.confirm(lsn, self.sent.confirmed(lsn))

    @property
    def idle(self) -> bool:
        return not (self.handed or self.queue)


class Run:
    """The director of one world."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.now = 1000.0
        self.database, self.kafka = Database(), Kafka()
        self.guarantee = self.random.choice((AT_LEAST_ONCE, EXACTLY_ONCE))
        self.deletes = self.random.random() < 0.7
        self.fails_over = self.random.random() < 0.4
        self.database.pooled = self.random.random() < 0.5
        self.freezes = self.random.random() < 0.4
        self.changes = self.random.random() < 0.3  # the guarantee is another one in some sessions
        self.repeats = False  # a frozen process may have sent something late
        self.life: Life | None = None
        self.frozen: list[Life] = []

    def go(self) -> str | None:
        """Run to the end; return what was violated."""
        try:
            for _ in range(_STEPS):
                self.now += self.random.random() * 0.1
                self._writes()
                self._lives()
            self._ends()
            self._judge()
        except Violation as error:
            return str(error)
        except Exception as error:  # any other than a CdcError
            return f"the program broke: {error!r}"
        return None

    def _writes(self) -> None:
        database, random = self.database, self.random
        running = list(database.running)
        act = random.random()
        if act < 0.25 and len(running) < 4:
            database.begin()
        elif act < 0.7 and running:
            database.insert(random.choice(running), random.choice(KEYS))
        elif act < 0.9 and running:
            database.end(random.choice(running), commits=random.random() < 0.8)
        elif act < 0.93:
            database.locked ^= {random.randrange(1, database.state.next_number + 1)}
        elif act < 0.96:
            database.replicate()
        elif act < 0.965 and self.fails_over:
            database.fail_over()

    def _lives(self) -> None:
        random = self.random
        if self.life is None:
            if self.changes:
                self.guarantee = random.choice((AT_LEAST_ONCE, EXACTLY_ONCE))
            self.life = Life(self, self.guarantee)
        elif random.random() < 0.02:  # killed
            self.life.reader.close()
            self.life = None
        elif random.random() < 0.01 and self.freezes:
            self.frozen.append(self.life)
            self.life = None
        for life in [self.life, *self.frozen]:
            if life:
                self._turn(life)

    def _turn(self, life: Life) -> None:
        if life in self.frozen and self.random.random() < 0.9:
            return
        try:
            life.turn(self.random)
        except (PostgresUnavailable, KafkaUnavailable):
            life.reader.close()
            if life in self.frozen:
                self.frozen.remove(life)
            if life is self.life:
                self.life = None

    def _ends(self) -> None:
        for xid in list(self.database.running):
            self.database.end(xid, commits=True)
        self.database.locked.clear()
        for life in self.frozen:
            life.reader.close()
        self.frozen.clear()
        calm = 0
        for _ in range(_LAST_STEPS):
            self.now += 0.05
            if self.life is None:
                self.life = Life(self, self.guarantee)
            life = self.life
            try:
                for act in (life.reads, life.takes, life.reports, life.delivers, life.confirms):
                    act(self.random)
            except (PostgresUnavailable, KafkaUnavailable):
                life.reader.close()
                self.life = None
                continue
            calm = calm + 1 if life.idle else 0
            if calm > 60 and not self._waits(life):
                return
        raise Violation("P7: it never comes to rest")

    def _waits(self, life: Life) -> bool:
        state = self.database.state
        if life.relay.has_rows(state.progress.seen, self.database.snapshot()) or state.progress.partly:
            return True
        return self._strays and not (self.fails_over and self.database.pooled)

    @property
    def _strays(self) -> bool:
        return self.deletes and bool(self.database.state.rows)

    def _judge(self) -> None:
        wanted = self.database.written
        records = [record for log in self.kafka.log for record in log]
        times = Counter(map(_id, records))
        if missing := sorted(wanted.keys() - times.keys()):
            raise Violation(f"P1: {missing} are in no topic")
        again = sorted(each for each, count in times.items() if count > 1)
        if again and not self.repeats:
            raise Violation(f"P2: {again} are there more than once")
        orders = [(partition(record.key or b"", PARTITIONS), _order(record)) for record in records]
        if len(set(orders)) < len(orders) and not self.repeats:
            raise Violation("P3: a position was given out twice")
        for log in self.kafka.log:
            by_key: dict[bytes | None, list[int]] = {}
            for record in log:
                if _id(record) in wanted:
                    by_key.setdefault(record.key, []).append(wanted[_id(record)].number)
            for key, numbers in by_key.items():
                firsts = list(dict.fromkeys(numbers))
                if firsts != sorted(firsts):
                    raise Violation(f"P4: key {key!r} has the order {firsts}")
        if self._strays and not (self.fails_over and self.database.pooled):
            raise Violation("P8: confirmed rows are left")


def worlds(seeds: Iterable[int]) -> Iterator[tuple[str, str | None]]:
    """Run worlds; yield their names, and what was violated."""
    for seed in seeds:
        yield f"polling {seed}", Run(str(seed)).go()

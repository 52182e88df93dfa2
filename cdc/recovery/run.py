"""Runs a recovery: publishes the rows that a lost slot did not bring, and makes a new slot that begins behind them.

While many rows are missing, they go in rounds, without a slot that would hold WAL. The last ones go from the snapshot
of the new slot, so that what it shows and what the slot streams are all rows, and none twice. The recovery can be
killed at any moment and called again: its record says where it stood, and what was sent is found by id.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Final, NamedTuple

from cdc.config.settings import Settings
from cdc.dead_letters.record_maker import RecordMaker
from cdc.dead_letters.resend import Resend
from cdc.delivery.positions import EXACTLY_ONCE, topic_key
from cdc.delivery.recovery_record import ROUNDS, SLOT, RecoveryRecord, recovery_key
from cdc.errors import CdcError, PoisonEvent, PostgresError, SlotActive
from cdc.kafka import positions
from cdc.kafka.cluster import DEAD_LETTERS_CONFIG, Cluster
from cdc.kafka.transactional_producer import producer
from cdc.lsn import LSN, EventPosition
from cdc.postgres import horizons, slot_health, slots
from cdc.postgres.connection import LONG_SECONDS, connect, converting, query, snapshot
from cdc.postgres.renamed import located
from cdc.quantities import moment
from cdc.recovery import losses, state
from cdc.recovery.bound import Bound
from cdc.recovery.candidates import Candidates
from cdc.recovery.events import MissingRows
from cdc.recovery.losses import Losses
from cdc.recovery.missing import MissingCount, MissingEvent
from cdc.recovery.new_slot import RECOVER, NewSlot
from cdc.recovery.selection import RowSelection, select, stream_facts
from cdc.recovery.state import FoundState, RecoveryOptions
from cdc.replication.horizon import Horizon, counting, remembered

FEW: Final = 10_000
"""So many missing rows go while the new slot holds WAL."""
UNORDERED: Final = 100
"""So many keys are named whose events may not be in the order of their commits."""
_TRIES: Final = 3  # to make a slot that is not lost again before the rows are sent
_NOTE_SECONDS: Final = 5.0
_RELEASE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1
_AGAIN: Final = "correct the contract or fix the row, then run the command again; what was sent stays sent"
_PREFIX: Final = "cdc-publisher"


class RecoveryStep(NamedTuple):
    """The progress of one step; `total` is None when it is unknown."""

    name: str
    total: int | None
    done: int


@dataclass(slots=True, kw_only=True)
class RecoveryOutcome:
    """The number of events sent, and the start of the new slot."""

    start: LSN
    sent: int = 0
    dead_lettered: int = 0
    perhaps_again: int = 0


class Recovery:
    """One recovery of the settings' slot. Raises CdcError; Temporary where the same call may succeed later.

    `allow` raises an error when it may not begin in the state that was found.
    """

    def __init__(
        self, settings: Settings, options: RecoveryOptions, allow: Callable[[FoundState], None] = lambda _: None
    ) -> None:
        self._settings = settings
        self._options = options
        self._stack = contextlib.ExitStack()
        self._guard = self._stack.enter_context(connect(settings.postgres.dsn, application_name=RECOVER))
        self._connection = self._stack.enter_context(
            connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS, application_name=RECOVER)
        )
        self._resend: Resend[MissingEvent] | None = None
        self._position: EventPosition | None = None  # of the last event that was sent
        self._noted = 0.0
        self._losses: dict[str, Losses] = {}  # by bound
        try:
            state.lock(self._guard, settings.postgres.slot)
            self._settings = settings = located(self._connection, settings)
            self.found = state.find(self._connection, settings, options)
            if self.found.finished is None:
                allow(self.found)
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        found = self.found
        self._candidates = Candidates(self._settings, self._connection, found.streams, None)
        self._stack.callback(self._candidates.close)
        table, last_commit = self._candidates.table, self._candidates.last_commit
        chosen = state.bound(self._connection, found, self._options, table, last_commit)
        self._record = found.begun or RecoveryRecord(
            slot=found.mark.slot,
            old=found.lost,
            failover=found.failover,
            guarantee=found.memory.record.guarantee if found.memory.record else self._settings.delivery.guarantee,
            begun=int(time.time() * 1000),
            automatic=self._options.automatic,
            backfill=self._options.backfill,
            bound=chosen.plain(),
        )
        self._record = replace(self._record, failed="")
        self._losses = {at: Losses.read(one) for at, one in self._record.losses.items()}
        self._bound = chosen

    @property
    def losses(self) -> Losses:
        """The rows that were deleted, as far as was found out, and may not have been published."""
        return reduce(Losses.join, self._losses.values(), Losses())

    def close(self) -> None:
        """Close all connections, and delete the files."""
        self._stack.close()

    @property
    def progress(self) -> tuple[int, int | None]:
        """Events sent, of how many; None until they are counted."""
        return self._record.sent, self._record.missing

    def survey(self) -> Generator[RecoveryStep, None, None]:
        """Find out what is to be sent, without changing anything; see `selection` and `count`.

        Raises PoisonEvent for a row that no record can be made of, unless such rows become dead letters.
        """
        with self._snapshot() as horizon:
            yield from self._look(horizon)
            self.selection: RowSelection = self._selection
            self.count: MissingCount = self._candidates.count
            self.unordered, self.unordered_keys = (
                (0, []) if self.selection.order.exact else self._candidates.missing.unordered(UNORDERED)
            )
            yield from self._try()

    def _try(self) -> Iterator[RecoveryStep]:
        """Make all records without sending them."""
        with (
            contextlib.closing(RecordMaker(self._settings, dry_run=True)) as maker,
            contextlib.closing(MissingRows(self._settings, self._candidates, self.found.streams[-1], maker)) as rows,
        ):
            done = 0
            with self._explaining():
                for topic in filter(None, self._candidates.missing.topics()):
                    maker.destinations.largest(topic)
                if self._settings.delivery.on_poison == "dead-letter":
                    return
                rows.begin(LSN(1))
                for batch in rows.batches():
                    for _ in rows.records(batch, "", numbered=False):
                        done += 1
                    yield RecoveryStep("checking events", self.count.missing, done)

    def heal(self) -> Generator[RecoveryStep, None, None]:
        """Send what is missing and make the slot; see `outcome`."""
        self._begin()
        try:
            before: int | None = None
            while True:
                at = self._message()
                if self._record.at is None:
                    self._write(at=at)
                with self._snapshot() as horizon:
                    yield from self._look(horizon)
                    missing = self._candidates.count.missing
                    if missing <= FEW or (before is not None and missing > before / 2):
                        break
                    yield from self._send(at)
                before = missing
                self._write(bound=Bound.of(horizon).plain())
                self._bound = Bound.of(horizon)
            yield from self._last()
        except CdcError as error:
            with contextlib.suppress(CdcError):
                self._write(failed=str(error))
            raise

    def _begin(self) -> None:
        settings, found = self._settings, self.found

        def opened(maker: RecordMaker) -> MissingRows:
            self._rows = MissingRows(settings, self._candidates, found.streams[-1], maker)
            self._stack.callback(self._rows.close)
            return self._rows

        self._resend = self._stack.enter_context(
            contextlib.closing(Resend(settings, opened, dry_run=False, name=f"recover-{found.key}"))
        )
        if settings.delivery.on_poison == "dead-letter":
            Cluster(settings.kafka).ensure_topic(settings.topics, settings.topics.dead_letter, DEAD_LETTERS_CONFIG)
        if EXACTLY_ONCE in (settings.delivery.guarantee, self._record.guarantee):
            producer(settings, found.key)  # ends the transactions of a publisher that is frozen
        self.outcome = RecoveryOutcome(start=LSN(0))
        self._write(phase=ROUNDS, order=str(self.selection.order.kind), sent=0, missing=None)
        self._resend.begin()

    def _last(self) -> Iterator[RecoveryStep]:
        """Make the slot, and send what its snapshot shows."""
        settings, slot = self._settings, self.found.mark.slot
        for _ in range(_TRIES):
            self._drop()
            self._write(phase=SLOT)
            yield RecoveryStep("creating the slot", None, 0)
            kept = False
            try:
                with contextlib.closing(NewSlot(settings.postgres.dsn)) as new:
                    start = new.create(slot, failover=self.found.failover, seconds=self._options.wait)
                    with self._snapshot(start.snapshot) as horizon:
                        new.hold(slot, settings.postgres.publication)
                        self._write(start=start.lsn)
                        yield from self._look(horizon)
                        yield from self._send(LSN(start.lsn - 1))
                    kept = self._is_healthy(start.lsn)
                    if kept:
                        self._finish(start.lsn, replace(horizon, lsn=start.lsn))
                        return
            finally:
                if not kept:
                    with contextlib.suppress(CdcError):
                        self._drop()
        raise PostgresError(
            f"the new replication slot {slot!r} was lost again, {_TRIES} times, while the last events were sent",
            hint="raise max_slot_wal_keep_size, and run: cdc-publisher recover",
        )

    def _is_healthy(self, start: LSN) -> bool:
        health = slot_health.read(self._guard, self.found.mark.slot)
        lost = slot_health.problem(self.found.mark.slot, health)
        return lost is None and health is not None and health.confirmed == start

    def _finish(self, start: LSN, horizon: Horizon) -> None:
        """Write the slot's record, then delete that of the recovery."""
        found, outcome = self.found, self.outcome
        outcome.start = start
        known = counting(found.memory.horizons, found.mark.timeline, found.timelines, start)
        settings = self._settings
        self.done: dict[str, Any] = {
            "at": moment(time.time(), "seconds"),
            "slot": found.mark.slot,
            "start": str(start),
            "sent": outcome.sent,
            "dead_lettered": outcome.dead_lettered,
            "perhaps_again": outcome.perhaps_again,
            "deleted": self.losses.rows,
            "bound": str(self.selection.bound),
            "order": str(self.selection.order.kind),
            "automatic": self._record.automatic,
            "backfill": self._record.backfill,
        }
        mark = replace(
            found.mark,
            confirmed=start,
            position=self._position or (found.memory.record.position if found.memory.record else None),
            caught_up=settings.delivery.guarantee == EXACTLY_ONCE,
            horizons=remembered((*known, horizon)),
            recovered=self.done,
        )
        for topic, made in found.recreated.items():
            positions.write(settings, topic_key(found.key, topic), made.encode())
        positions.write(settings, found.key, mark.encode())
        positions.write(settings, recovery_key(found.key), None)

    def _drop(self) -> None:
        """Drop the slot, if there is one: the lost one, or one of an earlier attempt."""
        slot = self.found.mark.slot
        deadline = time.monotonic() + _RELEASE_SECONDS
        while any(one.name == slot for one in slots.find(self._guard)):
            try:
                slots.drop(self._guard, slot)
            except PostgresError as error:  # its walsender needs a moment to end
                if time.monotonic() >= deadline:
                    raise SlotActive(error.message, hint="end its reader, and run the command again") from None
                time.sleep(_LOOK_SECONDS)

    def _look(self, now: Horizon) -> Iterator[RecoveryStep]:
        """Find the missing events of the snapshot, of which `now` is the horizon."""
        self._selection = select(self._connection, self._settings, self._candidates.table, self._bound, now)
        for done in self._candidates.read_rows(self._selection):
            yield RecoveryStep("reading rows", None, done)
        for done, total in self._candidates.read_topics():
            yield RecoveryStep("reading topics", total, done)
        for done in self._candidates.judge(stream_facts(self.found, self._record, self._selection)):
            yield RecoveryStep("reading rows", None, done)
        # Each round has a bound of its own; the survey and the first one have the same.
        found = losses.find(
            self._connection,
            self._guard,
            self._settings,
            self._selection.bound,
            now,
            self.found.memory.purge,
            published=self._candidates.published_since(self._bound.lsn),
        )
        if found:
            self._losses[str(self._bound)] = found
            self._record = replace(self._record, losses={at: one.plain() for at, one in self._losses.items()})

    def _send(self, at: LSN) -> Generator[RecoveryStep, None, None]:
        """Send the missing events, with this commit LSN in their positions."""
        assert self._resend
        count, outcome = self._candidates.count, self.outcome
        self._rows.begin(at)
        total, before = outcome.sent + count.missing, self._rows.dead_lettered
        self._write(missing=total, sent=outcome.sent, perhaps_again=outcome.perhaps_again + count.perhaps_again)
        began, done = time.monotonic(), 0
        with self._explaining():
            for _ in self._resend.run():
                done += 1
                outcome.sent += 1
                self._record = replace(self._record, sent=outcome.sent)
                if self._options.rate:
                    time.sleep(max(0.0, began + done / self._options.rate - time.monotonic()))
                if time.monotonic() >= self._noted + _NOTE_SECONDS:
                    self._write(sent=outcome.sent)
                yield RecoveryStep("sending events", total, outcome.sent)
        if done:
            self._position = EventPosition(at, done - 1)
        outcome.dead_lettered += self._rows.dead_lettered - before
        outcome.perhaps_again += count.perhaps_again
        self._write(sent=outcome.sent)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except PoisonEvent as poison:
            poison.hint = _AGAIN
            raise

    @contextlib.contextmanager
    def _snapshot(self, name: str = "") -> Iterator[Horizon]:
        """Open a snapshot, or one of another session by its name; yield its horizon."""
        connection = self._connection
        table = self._settings.outbox.qualified_name
        with snapshot(connection, "reading the outbox table", name, table=table):
            yield horizons.take(connection, table)

    def _message(self) -> LSN:
        """Write a record into the WAL, and return its end: no transaction of before has a later commit LSN."""
        with converting("writing to the WAL"), self._guard.transaction():
            self._guard.execute("set local synchronous_commit = local")
            ((lsn,),) = query(
                self._guard,
                "writing to the WAL",
                "select pg_logical_emit_message(true, %s, 'recover')::text",
                _PREFIX,
            )
        return LSN.parse(lsn)

    def _write(self, **changes: Any) -> None:
        self._record = replace(self._record, **changes)
        positions.write(self._settings, recovery_key(self.found.key), self._record.encode())
        self._noted = time.monotonic()

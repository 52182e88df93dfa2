"""The work of `outbox purge`: how far rows are known to be published, and the rounds in which they go."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from cdc.config.settings import Settings
from cdc.delivery.positions import Mark, differences
from cdc.errors import KafkaError, PostgresError, Temporary
from cdc.kafka import positions
from cdc.lsn import LSN
from cdc.postgres import catalog, defects, publication, slots
from cdc.purge import partitions, rows
from cdc.purge.horizon import Age, Clock, Horizon, Horizons, age
from cdc.purge.partitions import Fate, Partition, Tree
from cdc.purge.rows import Due, Table
from cdc.replication.publication import GO_ON, NONE, PUBLISHED_BY, Definition, table_oid

_LOOK_SECONDS: Final = 0.1
_KAFKA_SECONDS: Final = 10.0
_TRIES: Final = 3  # to lock a partition, in one round
_PAUSE_SECONDS: Final = 0.5
_LONGEST_BREATH: Final = 1.0


class Stop(Protocol):
    """Something that may ask us to stop, as threading.Event has it."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float, /) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for; times in seconds."""

    grace: float
    batch: int
    wait: float
    age_column: str | None
    accept_unknown: bool
    keep_partitions: bool
    dry_run: bool
    watch: bool


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What went in a round, or would go."""

    due: Due | None = None  # None while nothing can be old enough
    deleted: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # partitions, with the rows that were in them
    busy: list[str] = field(default_factory=list)  # partitions that could not be locked
    notes: list[str] = field(default_factory=list)  # what else is worth telling


class Progress(NamedTuple):
    """How much of the table is done with, in blocks."""

    done: int
    total: int


class NotConfirmed(Temporary):
    """The publisher has not come as far as it must."""

    hint = "start the publisher, or find out why it does not deliver; nothing was deleted"


class Purging:
    """One connection, and what is known to have ended at which LSN as long as it lives."""

    def __init__(self, settings: Settings, options: Options, stop: Stop) -> None:
        self._settings = settings
        self._options = options
        self._stop = stop
        self._horizons = Horizons()
        self._connection = rows.session(settings.postgres.dsn)

    @property
    def alive(self) -> bool:
        """Whether the connection, and so all that is known, is still of use."""
        return not self._connection.closed

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def round(self, outcome: Outcome) -> Iterator[Progress]:
        """Delete what may go, and write into `outcome` what went.

        Raises PostgresError or KafkaError where rows may be unpublished, and NotConfirmed when the publisher does not
        come far enough in time.
        """
        connection, options = self._connection, self._options
        catalog.server(connection)
        found = self._definition()
        by = self._age()
        # Taken first: what is asked afterwards can only be newer.
        self._horizons.add(rows.horizon(connection, time.monotonic()))
        horizon = self._reached(options.grace if by.clock is Clock.HORIZON else 0)
        if horizon is None:
            return
        cutoff = rows.ago(connection, options.grace)
        outcome.due = Due(horizon, by, cutoff)
        tree = partitions.tree(connection, table_oid(found) or 0, by.column, cutoff)
        outcome.notes += _notes(tree)
        rows.check_rights(connection, tree.leaves)
        yield from self._purge(tree, outcome.due, outcome)

    def _definition(self) -> Definition:
        """Raises PostgresError when the table is not published as it must be."""
        name, table = self._settings.postgres.publication, self._settings.outbox.qualified_name
        found = publication.read(self._connection, name, table)
        if table_oid(found) is None:
            raise PostgresError(f"table {'.'.join(table)} does not exist", hint="check [outbox] table")
        if defect := catalog.publication_defect(self._connection, name, table):
            raise defect.error()
        if found[PUBLISHED_BY] == NONE:
            raise defects.unlogged(table).error()
        return found

    def _age(self) -> Age:
        columns = catalog.table_columns(self._connection, self._settings.outbox.qualified_name) or {}
        return age(
            self._options.grace,
            self._options.age_column,
            columns,
            commits=rows.keeps_commit_timestamps(self._connection),
            watch=self._options.watch,
        )

    def _reached(self, grace: float) -> Horizon | None:
        """The newest horizon that is confirmed and so old; None when none is so old."""
        deadline = time.monotonic() + self._options.wait
        until = time.monotonic() - grace
        while True:
            confirmed = self._confirmed()
            if horizon := self._horizons.reached(confirmed, until):
                break
            if not self._horizons.reached(LSN(2**64 - 1), until):
                return None
            if time.monotonic() >= deadline or self._stop.wait(_LOOK_SECONDS):
                if not self._stop.is_set():
                    self._check(confirmed)  # what is wrong for good is worth more to know
                raise NotConfirmed(
                    f"replication slot {self._settings.postgres.slot!r} stands at {confirmed}, and what has been"
                    " committed by now ends beyond it"
                )
        self._check(confirmed)
        self._horizons.forget(horizon)
        return horizon

    def _confirmed(self) -> LSN:
        """How far the slot is confirmed. Raises PostgresError when it is not one that the publisher can read."""
        slot = catalog.slot(self._connection, self._settings)
        assert slot.confirmed is not None
        return slot.confirmed

    def _check(self, confirmed: LSN) -> None:
        """Raises an error unless it was the publisher that moved the slot to `confirmed`, which was read before."""
        found = self._definition()
        if not self._settings.kafka:
            return
        connection, slot = self._connection, self._settings.postgres.slot
        mark = Mark(slots.system_identifier(connection), slots.timeline(connection), slot, confirmed, found, {})
        known = positions.remembered(self._settings, mark.key, _KAFKA_SECONDS).mark
        if known is None and not self._options.accept_unknown:
            raise KafkaError(
                f"topic {self._settings.topics.positions!r} knows nothing of slot {mark.key!r}: nobody can tell who"
                " moved it",
                hint="start the publisher, which makes it known; or, if the slot is to be believed, --accept-unknown",
            )
        if known is None:
            return
        if known.timeline != mark.timeline and not self._options.accept_unknown:
            raise NotConfirmed(f"the publisher has not run since PostgreSQL is on timeline {mark.timeline}")
        if told := differences(mark, known):
            raise PostgresError(
                f"not as the publisher left it: {'; '.join(told)}",
                hint=GO_ON,
            )

    def _purge(self, tree: Tree, due: Due, outcome: Outcome) -> Iterator[Progress]:
        tables = list(tree.leaves)
        total = sum(t.blocks for t in (*tables, *(leaf for old in tree.old for leaf in old.leaves)))
        done = 0
        for partition in tree.old:
            fate = Fate.STAYS if self._options.keep_partitions else self._drop(partition, due, outcome)
            if fate is Fate.STAYS:
                rows.check_rights(self._connection, list(partition.leaves))
                tables += partition.leaves
            else:
                done += sum(leaf.blocks for leaf in partition.leaves)
            yield Progress(done, total)
            if self._stop.is_set():
                return
        for table in tables:
            for blocks in self._rows(table, due, outcome):
                done += blocks
                yield Progress(done, total)
                if self._stop.is_set():
                    return

    def _drop(self, partition: Partition, due: Due, outcome: Outcome) -> Fate:
        name = str(partition.table)
        for _ in range(_TRIES):
            fate, count = partitions.drop(self._connection, partition, due, dry_run=self._options.dry_run)
            if fate is not Fate.BUSY or self._stop.wait(_PAUSE_SECONDS):
                break
        if fate is Fate.DROPPED:
            outcome.dropped[name] = count
        elif fate is Fate.BUSY:
            outcome.busy.append(name)
        return fate

    def _rows(self, table: Table, due: Due, outcome: Outcome) -> Iterator[int]:
        if self._options.dry_run:
            outcome.deleted += rows.count(self._connection, table, due)
            yield table.blocks
            return
        began = time.monotonic()
        for blocks, deleted in rows.delete(self._connection, table, due, self._options.batch):
            took = time.monotonic() - began
            outcome.deleted += deleted
            yield blocks
            # Half of the time is left to others.
            self._stop.wait(min(took, _LONGEST_BREATH))
            began = time.monotonic()


def _notes(tree: Tree) -> list[str]:
    told = [f"{table} is foreign or unlogged, so its rows were not published: they stay" for table in tree.strange]
    return told + [
        f"{table} could be dropped, but the role does not own it and its parent: its rows are deleted instead"
        for table in tree.unowned
    ]

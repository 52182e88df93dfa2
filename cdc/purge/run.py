"""Runs `outbox purge`: finds how far rows are known to be published, and deletes them in rounds."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from cdc.config.settings import Settings
from cdc.delivery.positions import SlotRecord, differences
from cdc.delivery.purge_record import PurgeRecord, purge_key
from cdc.errors import CdcError, KafkaError, PostgresError, Temporary
from cdc.kafka import positions
from cdc.lsn import LSN
from cdc.postgres import catalog, defects, horizons, polling_defects, publication, relay_facts, slots
from cdc.postgres.connection import query
from cdc.postgres.renamed import located
from cdc.purge import partitions, rows
from cdc.purge.age import Age, AgeClock, age
from cdc.purge.partitions import Fate, TablePartition, Tree
from cdc.purge.rows import Due, PurgedTable, SeenRows
from cdc.replication.horizon import Horizon, Horizons
from cdc.replication.publication import GO_ON, NONE, PUBLISHED_BY, Definition, table_oid

_LOOK_SECONDS: Final = 0.1
_TELL_SECONDS: Final = 10.0
_KAFKA_SECONDS: Final = 10.0
_TRIES: Final = 3  # to lock a partition, in one round
_PAUSE_SECONDS: Final = 0.5
_LONGEST_BREATH: Final = 1.0


class Stop(Protocol):
    """A request to stop, such as a threading.Event."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float, /) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeOptions:
    """The options of a purge; times in seconds."""

    grace: float
    batch: int
    wait: float
    age_column: str | None
    accept_unknown: bool
    keep_partitions: bool
    dry_run: bool
    watch: bool


@dataclass(slots=True, kw_only=True)
class PurgeOutcome:
    """The result of a round, or of a dry run."""

    due: Due | None = None  # None while no row can be old enough
    deleted: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # partitions, with the rows that were in them
    oids: list[int] = field(default_factory=list)  # of these, or of their own partitions
    busy: list[str] = field(default_factory=list)  # partitions that could not be locked
    failed: dict[str, str] = field(default_factory=dict)  # tables, with the first error of each
    notes: list[str] = field(default_factory=list)  # for the user


class Progress(NamedTuple):
    """The progress through the table, in blocks."""

    done: int
    total: int


class NotConfirmed(Temporary):
    """The publisher has not confirmed the rows to delete."""

    hint = "start the publisher, or find out why it does not deliver; nothing was deleted"


class Purging:
    """One connection with its horizons."""

    def __init__(self, settings: Settings, options: PurgeOptions, stop: Stop) -> None:
        self._settings = settings
        self._options = options
        self._stop = stop
        self._horizons = Horizons()
        self._connection = rows.session(settings.postgres.dsn)
        self._key: str | None = None  # of the slot's record
        self._record = PurgeRecord()
        self._told = (0, 0)  # rows and partitions of this round that are in the record

    @property
    def alive(self) -> bool:
        """Whether the connection is open; its horizons are valid as long as it is."""
        return not self._connection.closed

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def round(self, outcome: PurgeOutcome) -> Iterator[Progress]:
        """Delete the rows that are due, and fill `outcome`.

        Raises PostgresError or KafkaError where rows may be unpublished, and NotConfirmed when the publisher does not
        confirm them in time.
        """
        connection, options = self._connection, self._options
        rows.use_path(connection, own=True)
        polls = self._settings.postgres.polls
        if not polls:
            catalog.server(connection)
        self._settings = located(connection, self._settings)
        found = self._table() if polls else self._definition()
        by = self._age()
        published = self._seen() if polls else self._below(by)
        if published is None:
            return
        cutoff = rows.ago(connection, options.grace)
        outcome.due = Due(published, by, cutoff)
        tree = partitions.tree(connection, table_oid(found) or 0, by.column, cutoff)
        outcome.notes += _notes(tree)
        rows.use_path(connection, own=False)
        self._told, told_at = (0, 0), time.monotonic()
        try:
            for progress in self._purge(tree, outcome.due, outcome):
                yield progress
                if time.monotonic() >= told_at + _TELL_SECONDS:
                    self._tell(outcome)
                    told_at = time.monotonic()
        finally:
            self._tell(outcome)

    def _tell(self, outcome: PurgeOutcome) -> None:
        """Write into the topic of positions what was deleted since the last call, for a recovery."""
        done, (deleted, dropped) = (outcome.deleted, len(outcome.oids)), self._told
        if self._key is None or self._options.dry_run or done == self._told:
            return
        with contextlib.suppress(CdcError):  # then a recovery counts these rows among those that may be lost
            ((moment,),) = query(self._connection, "asking the time", "select extract(epoch from clock_timestamp())")
            self._record = self._record.add(float(moment), outcome.deleted - deleted, tuple(outcome.oids[dropped:]))
            positions.write(self._settings, purge_key(self._key), self._record.encode(), _KAFKA_SECONDS)
        self._told = done

    def _below(self, by: Age) -> Horizon | None:
        """Return a horizon that the slot has passed; None while none is old enough."""
        # First: everything that is read afterwards can only be newer.
        self._horizons.add(replace(horizons.take(self._connection), taken=time.monotonic()))
        return self._reached(self._options.grace if by.clock is AgeClock.HORIZON else 0)

    def _seen(self) -> SeenRows:
        """Return what the relay has confirmed. Raises PostgresError where the table is not as polling needs it."""
        if defect := polling_defects.first(self._connection, self._settings):
            raise defect.error()
        relay = relay_facts.require(self._connection, self._settings)
        return rows.seen_rows(relay, self._settings.outbox.published)

    def _table(self) -> Definition:
        """Return the definition of table and publication. Raises PostgresError when there is no table."""
        name, table = self._settings.postgres.publication, self._settings.outbox.qualified_name
        catalog.require_table(self._connection, self._settings)
        found = publication.read(self._connection, name, table)
        if table_oid(found) is None:
            raise PostgresError(f"table {'.'.join(table)} does not exist", hint="check [outbox] table")
        return found

    def _definition(self) -> Definition:
        """Check the definition of table and publication. Raises PostgresError when inserts are not published."""
        name, table = self._settings.postgres.publication, self._settings.outbox.qualified_name
        found = self._table()
        if defect := (
            catalog.publication_defect(self._connection, name, table)
            or catalog.children_defect(self._connection, name, table, [], partitions=False)
            or catalog.hidden_rows(self._connection, table)
        ):
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
            # A relay has one snapshot, and none of its past.
            watch=self._options.watch and not self._settings.postgres.polls,
        )

    def _reached(self, grace: float) -> Horizon | None:
        """Return the newest confirmed horizon of that age; None when none is that old."""
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
                    self._check(confirmed)  # a permanent error is more useful to report
                raise NotConfirmed(
                    f"replication slot {self._settings.postgres.slot!r} has confirmed {confirmed}, and committed"
                    " transactions end beyond it"
                )
        self._check(confirmed)
        self._horizons.forget(horizon)
        return horizon

    def _confirmed(self) -> LSN:
        """Return the slot's confirmed LSN. Raises PostgresError when the publisher cannot read the slot."""
        slot = catalog.slot(self._connection, self._settings)
        assert slot.confirmed is not None
        return slot.confirmed

    def _check(self, confirmed: LSN) -> None:
        """Check that the publisher moved the slot to `confirmed`, which was read before. Raises CdcError."""
        found = self._definition()
        if not self._settings.kafka:
            return
        connection, slot = self._connection, self._settings.postgres.slot
        mark = SlotRecord(slots.system_identifier(connection), slots.timeline(connection), slot, confirmed, found, {})
        memory = positions.remembered(self._settings, mark.key, _KAFKA_SECONDS)
        self._key, self._record = mark.key, memory.purge
        if memory.recovery is not None:
            raise memory.recovery.unfinished()
        known = memory.record
        if known is None and not self._options.accept_unknown:
            raise KafkaError(
                f"topic {self._settings.topics.positions!r} has no record of slot {mark.key!r}: it is unknown whether"
                " the publisher moved it",
                hint="start the publisher, which writes one; or, if the slot can be trusted, use --accept-unknown",
            )
        if known is None:
            return
        if known.timeline != mark.timeline and not self._options.accept_unknown:
            raise NotConfirmed(f"the publisher has not run since PostgreSQL switched to timeline {mark.timeline}")
        if changes := differences(mark, known):
            raise PostgresError(
                f"not as the publisher left it: {'; '.join(changes)}",
                hint=GO_ON,
            )

    def _purge(self, tree: Tree, due: Due, outcome: PurgeOutcome) -> Iterator[Progress]:
        tables = list(tree.leaves)
        total = sum(t.blocks for t in (*tables, *(leaf for old in tree.old for leaf in old.leaves)))
        done = 0
        for partition in tree.old:
            fate = Fate.STAYS
            if not self._options.keep_partitions:
                with self._own_error(partition.table, outcome):
                    fate = self._drop(partition, due, outcome)
            if fate is Fate.STAYS:
                tables += partition.leaves
            else:
                done += sum(leaf.blocks for leaf in partition.leaves)
            yield Progress(done, total)
            if self._stop.is_set():
                return
        error: CdcError | None = None
        purged = bool(outcome.dropped)
        for table in tables:
            with self._own_error(table, outcome) as failure:
                rows.check_rights(self._connection, [table])
                for blocks in self._rows(table, due, outcome):
                    done += blocks
                    yield Progress(done, total)
                    if self._stop.is_set():
                        return
                purged = True
            error = error or next(iter(failure), None)
        if error and not purged:
            raise error

    @contextlib.contextmanager
    def _own_error(self, table: PurgedTable, outcome: PurgeOutcome) -> Iterator[list[CdcError]]:
        """Keep an error from the other tables, and put it into the list; raise it when the connection is lost."""
        failure: list[CdcError] = []
        try:
            yield failure
        except CdcError as error:
            if self._connection.closed:
                raise
            failure.append(error)
            if not isinstance(error, Temporary):
                outcome.failed.setdefault(str(table), str(error))
            elif str(table) not in outcome.busy:
                outcome.busy.append(str(table))

    def _drop(self, partition: TablePartition, due: Due, outcome: PurgeOutcome) -> Fate:
        name = str(partition.table)
        for _ in range(_TRIES):
            fate, count = partitions.drop(self._connection, partition, due, dry_run=self._options.dry_run)
            if fate is not Fate.BUSY or self._stop.wait(_PAUSE_SECONDS):
                break
        if fate is Fate.DROPPED:
            outcome.dropped[name] = count
            outcome.oids += partition.oids
        elif fate is Fate.BUSY:
            outcome.busy.append(name)
        return fate

    def _rows(self, table: PurgedTable, due: Due, outcome: PurgeOutcome) -> Iterator[int]:
        if self._options.dry_run:
            outcome.deleted += rows.count(self._connection, table, due)
            yield table.blocks
            return
        began = time.monotonic()
        for blocks, deleted in rows.delete(self._connection, table, due, self._options.batch):
            took = time.monotonic() - began
            outcome.deleted += deleted
            yield blocks
            # Leave half of the time to other sessions.
            self._stop.wait(min(took, _LONGEST_BREATH))
            began = time.monotonic()


def _notes(tree: Tree) -> list[str]:
    notes = [f"{table} is foreign or unlogged, so its rows were not published: they stay" for table in tree.strange]
    return notes + [
        f"{table} could be dropped, but the role does not own it and its parent: its rows are deleted instead"
        for table in tree.unowned
    ]

"""Builds the status document of a publisher that does not answer, from its slot and its last position in Kafka."""

from dataclasses import dataclass, field
from typing import Final

from cdc import __version__
from cdc.delivery.recovery_record import RUN_IT, RecoveryRecord
from cdc.lsn import LSN
from cdc.quantities import moment, size
from cdc.status.document import Lag, RecordStatus, RecoveryStatus, SlotStatus, StatusDocument, TableStatus
from cdc.telemetry.health import State

STREAM: Final = "cdc-publisher stream"
"""The application name of a publisher's replication connection."""

_SILENT_SECONDS: Final = 30.0  # a publisher reports every ten at the latest
_START: Final = "start it with: cdc-publisher start"
_CREATE: Final = "run: cdc-publisher slot create"


@dataclass(frozen=True, slots=True)
class Walsender:
    """Reader of the slot in `pg_stat_replication` and `pg_stat_activity`; fields that the role may not see are None."""

    pid: int  # of the walsender
    application: str | None
    address: str | None
    since: str | None
    state: str | None  # streaming, or catchup
    silent_seconds: float | None  # since its last report

    @property
    def named(self) -> str:
        """The reader in a phrase."""
        client = f" at {self.address}" if self.address else ""
        return f"pid {self.pid}{f' ({self.application}{client})' if self.application else ''}"


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """State of the slot in PostgreSQL. `problem` is a sentence and a hint, `warning` a sentence."""

    slot: str
    publication: str
    time: str
    wal_end: LSN
    timeline: int
    exists: bool = False
    database: str | None = None  # of the slot, if it is another one
    confirmed: LSN | None = None
    retained_bytes: int | None = None
    limit_bytes: int | None = None
    safe_bytes: int | None = None
    wal_status: str | None = None
    problem: tuple[str, str] | None = None
    warning: str | None = None
    reader: Walsender | None = None
    unread_since: str | None = None  # from PostgreSQL 17 on
    table: str = ""
    rows: int | None = None  # an estimate


@dataclass(frozen=True, slots=True)
class Remembered:
    """Last position of the slot in Kafka; `problem` says why it is unknown."""

    confirmed: LSN | None = None
    timeline: int | None = None
    age_seconds: float | None = None
    problem: str = ""
    asked: bool = True
    recovery: RecoveryRecord | None = None  # that has begun and not ended


@dataclass(frozen=True, slots=True)
class _Verdict:
    state: State
    summary: str
    hint: str | None = None
    since: str | None = None
    ready: bool | None = False
    notes: list[str] = field(default_factory=list)


def describe(seen: SlotFacts, remembered: Remembered) -> StatusDocument:
    """Build the document; fields that only the process knows are None."""
    lag = None if seen.confirmed is None else max(0, seen.wal_end - seen.confirmed)
    verdict = _judge(seen, remembered, lag)
    return StatusDocument(
        version=__version__,
        time=seen.time,
        running=seen.reader is not None,
        state=verdict.state,
        ready=verdict.ready,
        summary=verdict.summary,
        since=verdict.since,
        slot=_slot(seen),
        lag=Lag(bytes=lag),
        source="database",
        notes=verdict.notes + _memory_notes(seen, remembered),
        hint=verdict.hint,
        memory=_memory(remembered),
        recovery=_recovery(remembered),
        table=TableStatus(name=seen.table, rows=seen.rows) if seen.table else None,
    )


def _judge(seen: SlotFacts, remembered: Remembered, lag: int | None) -> _Verdict:
    if remembered.recovery is not None:
        return _recovering(seen, remembered.recovery)
    if not seen.exists:
        return _missing(seen, remembered)
    if seen.problem:
        return _Verdict(State.SLOT_LOST, *seen.problem)
    if seen.database is not None:
        return _Verdict(
            State.FAILED,
            f"replication slot {seen.slot!r} belongs to database {seen.database!r}",
            "check [postgres] dsn",
        )
    notes = [seen.warning] if seen.warning else []
    behind = f"; {size(lag)} behind" if lag else ""
    if seen.reader is None:
        return _Verdict(State.STOPPED, f"no process reads the slot{behind}", _START, seen.unread_since, False, notes)
    return _read(seen.reader, behind, notes)


def _read(reader: Walsender, behind: str, notes: list[str]) -> _Verdict:
    if reader.application not in (None, "", STREAM):
        notes.append(f"the reader calls itself {reader.application!r}: it is not cdc-publisher")
    if reader.silent_seconds is not None and reader.silent_seconds >= _SILENT_SECONDS:
        notes.append(f"the reader has not reported for {reader.silent_seconds:.0f} s: it may be stuck")
    state = State.CATCHING_UP if reader.state == "catchup" else State.STREAMING
    return _Verdict(state, f"{reader.named} reads the slot{behind}", since=reader.since, ready=None, notes=notes)


def _recovering(seen: SlotFacts, recovery: RecoveryRecord) -> _Verdict:
    why = f"; its last attempt failed: {recovery.failed}" if recovery.failed else ""
    return _Verdict(
        State.RECOVERING,
        f"recovering replication slot {seen.slot!r}: {recovery.progress}{why}",
        f"unless it is running, {RUN_IT}",
        since=moment(recovery.begun / 1000),
    )


def _recovery(remembered: Remembered) -> RecoveryStatus | None:
    recovery = remembered.recovery
    return None if recovery is None else RecoveryStatus(sent=recovery.sent, missing=recovery.missing)


def _missing(seen: SlotFacts, remembered: Remembered) -> _Verdict:
    """Judge a slot that does not exist: a position in Kafka shows that it did."""
    missing = f"replication slot {seen.slot!r} does not exist"
    if remembered.confirmed is not None:
        was = f"{missing} any more: its last position in Kafka is {remembered.confirmed}"
        return _Verdict(State.SLOT_LOST, was, RUN_IT)
    if remembered.asked and not remembered.problem:
        return _Verdict(State.STOPPED, f"{missing}: it has not been created yet", _CREATE)
    return _Verdict(State.SLOT_LOST, missing, seen.problem[1] if seen.problem else _CREATE)


def _slot(seen: SlotFacts) -> SlotStatus:
    return SlotStatus(
        name=seen.slot,
        publication=seen.publication,
        confirmed=None if seen.confirmed is None else str(seen.confirmed),
        wal_end=str(seen.wal_end),
        retained_bytes=seen.retained_bytes,
        limit_bytes=seen.limit_bytes,
        safe_bytes=seen.safe_bytes,
        wal_status=seen.wal_status,
        active_pid=seen.reader.pid if seen.reader else None,
    )


def _memory(remembered: Remembered) -> RecordStatus | None:
    if remembered.confirmed is None:
        return None
    return RecordStatus(confirmed=str(remembered.confirmed), age_seconds=remembered.age_seconds)


def _memory_notes(seen: SlotFacts, remembered: Remembered) -> list[str]:
    if remembered.problem:
        return [f"the slot's last position in Kafka is unknown: {remembered.problem}"]
    if not doubtful(seen, remembered):
        return []
    return [
        f"the slot is ahead of the publisher's last position in Kafka ({remembered.confirmed}): it was"
        " advanced, or dropped and created again; start will refuse it"
    ]


def doubtful(seen: SlotFacts, remembered: Remembered) -> bool:
    """Whether the slot is ahead of the publisher's last position in Kafka.

    False while the slot has a reader, as it moves between the two readings.
    """
    if seen.reader or remembered.timeline != seen.timeline or remembered.confirmed is None:
        return False
    return seen.confirmed is not None and seen.confirmed > remembered.confirmed

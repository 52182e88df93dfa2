"""Builds the status document of a running publisher from its metrics."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, NamedTuple

from cdc.status.document import (
    Encode,
    History,
    InFlight,
    Lag,
    LastError,
    Latency,
    Publisher,
    Rate,
    Slot,
    StatusDocument,
    Topic,
    Totals,
)
from cdc.telemetry.health import judge, lag_seconds
from cdc.telemetry.metrics import STREAMING, Sample, Trouble, Vitals

RATE_SECONDS: Final = 10.0
_ENOUGH_EVENTS: Final = 100  # to know how much WAL an event takes


class Identity(NamedTuple):
    """Facts that do not change while the process lives."""

    version: str
    pid: int
    slot: str
    publication: str
    guarantee: str
    accelerator: str  # native or python


def describe(vitals: Vitals, identity: Identity, unix_time: float) -> StatusDocument:
    """Build the document as of `unix_time`. It is not validated: an odd value must not fail a probe."""
    condition = judge(vitals, unix_time)
    history = list(vitals.history.copy())
    recent = [sample for sample in history if unix_time - sample.unix_time <= RATE_SECONDS + 1]
    return StatusDocument.model_construct(
        version=identity.version,
        time=moment(unix_time),
        running=True,
        state=condition.state,
        ready=condition.ready,
        summary=condition.summary,
        since=moment(max(vitals.phase_since, vitals.state_since if vitals.phase == STREAMING else 0.0)),
        publisher=_publisher(vitals, identity, unix_time),
        slot=_slot(vitals, identity, unix_time),
        lag=Lag.model_construct(
            bytes=vitals.lag_bytes,
            seconds=round(lag_seconds(vitals, unix_time), 3),
            events=lag_events(vitals),
        ),
        rate=_rate(recent),
        totals=_totals(vitals),
        in_flight=InFlight.model_construct(
            events=vitals.in_flight,
            transactions=vitals.in_flight_transactions,
            oldest_seconds=None if vitals.oldest is None else round(max(0.0, unix_time - vitals.oldest), 3),
        ),
        topics=_topics(vitals, unix_time),
        latency=_latency(vitals),
        encode=Encode.model_construct(mean_us=_mean_us(vitals)),
        last_error=_last_error(vitals.trouble),
        history=_history(history),
    )


def moment(unix_time: float) -> str:
    """Format a time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lag_events(vitals: Vitals) -> int | None:
    """Count the events in flight, and estimate the unread ones from the mean WAL that an event has taken so far."""
    if vitals.received is None or vitals.wal_end is None:
        return vitals.in_flight
    unread = max(0, vitals.wal_end - vitals.received)
    passed = vitals.received - (vitals.began or vitals.received)
    if vitals.read < _ENOUGH_EVENTS or passed <= 0:
        return vitals.in_flight
    return vitals.in_flight + round(unread * vitals.read / passed)


def _publisher(vitals: Vitals, identity: Identity, unix_time: float) -> Publisher:
    return Publisher.model_construct(
        pid=identity.pid,
        started=moment(vitals.started),
        uptime_seconds=round(unix_time - vitals.started, 3),
        guarantee=identity.guarantee,
        accelerator=identity.accelerator,
        sessions=vitals.sessions,
        reconnects=vitals.reconnects,
    )


def _slot(vitals: Vitals, identity: Identity, unix_time: float) -> Slot:
    return Slot.model_construct(
        name=identity.slot,
        publication=identity.publication,
        stream=vitals.stream or None,
        confirmed=_text(vitals.confirmed),
        confirmed_age_seconds=None if vitals.confirmed is None else round(unix_time - vitals.confirmed_since, 3),
        wal_end=_text(vitals.wal_end),
        retained_bytes=vitals.retained,
        limit_bytes=vitals.limit,
        safe_bytes=vitals.safe,
        wal_status=vitals.wal_status,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _totals(vitals: Vitals) -> Totals:
    return Totals.model_construct(
        events=sum(vitals.events.values()),
        bytes=sum(vitals.bytes.values()),
        delivered=vitals.delivered,
        transactions=vitals.transactions,
        poison=vitals.poison,
        dead_letters=vitals.dead_letters,
        skipped_replays=vitals.skipped_replays,
        sent_again=vitals.sent_again,
    )


def _rate(recent: list[Sample]) -> Rate:
    seconds = recent[-1].unix_time - recent[0].unix_time if recent else 0.0
    if seconds <= 0:
        return Rate.model_construct(events_per_second=0.0, bytes_per_second=0.0, transactions_per_second=0.0)
    first, last = recent[0], recent[-1]
    return Rate.model_construct(
        events_per_second=round((last.delivered - first.delivered) / seconds, 1),
        bytes_per_second=round((last.bytes - first.bytes) / seconds, 1),
        transactions_per_second=round((last.transactions - first.transactions) / seconds, 1),
    )


def _topics(vitals: Vitals, unix_time: float) -> dict[str, Topic]:
    events, sizes, before = dict(vitals.events), dict(vitals.bytes), vitals.topics_before.copy()
    then, counts = next((each for each in before if unix_time - each[0] <= RATE_SECONDS + 1), (unix_time, events))
    seconds = max(unix_time - then, 1.0)
    return {
        topic: Topic.model_construct(
            events=count,
            bytes=sizes.get(topic, 0),
            events_per_second=round((count - counts.get(topic, 0)) / seconds, 1),
        )
        for topic, count in sorted(events.items())
    }


def _latency(vitals: Vitals) -> Latency:
    latencies = sorted(vitals.latencies.copy())
    if not latencies:
        return Latency.model_construct(count=0)
    p50, p95, p99, slowest = (
        round(latencies[round(share * (len(latencies) - 1))] * 1000, 3) for share in (0.5, 0.95, 0.99, 1.0)
    )
    return Latency.model_construct(count=len(latencies), p50_ms=p50, p95_ms=p95, p99_ms=p99, max_ms=slowest)


def _mean_us(vitals: Vitals) -> float | None:
    count = sum(vitals.encode.counts)
    return round(vitals.encode.sum / count * 1e6, 3) if count else None


def _last_error(trouble: Trouble | None) -> LastError | None:
    if trouble is None:
        return None
    return LastError.model_construct(time=moment(trouble.unix_time), kind=trouble.kind, message=trouble.message)


def _history(history: list[Sample]) -> History:
    pairs = list(pairwise(history))
    return History.model_construct(
        interval_seconds=1,
        times=[round(after.unix_time, 3) for _, after in pairs],
        events_per_second=[
            round((after.delivered - before.delivered) / max(after.unix_time - before.unix_time, 0.001), 1)
            for before, after in pairs
        ],
        lag_bytes=[after.lag_bytes for _, after in pairs],
        latency_ms=[
            None
            if after.delivery_seconds is None or after.delivered == before.delivered
            else round(after.delivery_seconds * 1000, 3)
            for before, after in pairs
        ],
    )

"""Builds the status document of a running publisher from its metrics."""

from itertools import pairwise
from typing import Final, NamedTuple

from cdc import __version__
from cdc.config.settings import Settings
from cdc.quantities import moment
from cdc.status.document import (
    Encode,
    History,
    InFlight,
    Lag,
    LastError,
    Latency,
    PollingStatus,
    PublisherStatus,
    Rate,
    RecoveryStatus,
    SlotStatus,
    StatusDocument,
    TopicStatus,
    Totals,
)
from cdc.telemetry.health import judge
from cdc.telemetry.metrics import STREAMING, Metrics, Sample, Trouble

RATE_SECONDS: Final = 10.0


class PublisherIdentity(NamedTuple):
    """Facts that do not change while the process lives."""

    version: str
    pid: int
    slot: str
    publication: str
    guarantee: str
    accelerator: str  # native or python

    @classmethod
    def of(cls, settings: Settings, pid: int, accelerator: str) -> "PublisherIdentity":
        """Return the identity of a process with these settings."""
        postgres = settings.postgres
        return cls(__version__, pid, postgres.slot, postgres.publication, settings.delivery.guarantee, accelerator)


def describe(metrics: Metrics, identity: PublisherIdentity, unix_time: float, *, past: bool = True) -> StatusDocument:
    """Build the document as of `unix_time`, with the history of minutes if `past`.

    It is not validated: an odd value must not fail a probe.
    """
    condition = judge(metrics, unix_time)
    history = list(metrics.history.copy())
    recent = [sample for sample in history if unix_time - sample.unix_time <= RATE_SECONDS + 1]
    return StatusDocument.model_construct(
        version=identity.version,
        time=moment(unix_time),
        running=True,
        state=condition.state,
        ready=condition.ready,
        summary=condition.summary,
        since=moment(max(metrics.phase_since, metrics.state_since if metrics.phase == STREAMING else 0.0)),
        publisher=_publisher(metrics, identity, unix_time),
        slot=_slot(metrics, identity, unix_time),
        lag=Lag.model_construct(
            bytes=metrics.lag_bytes,
            seconds=round(metrics.lag_seconds(unix_time), 3),
            events=metrics.lag_events,
        ),
        rate=_rate(recent),
        totals=_totals(metrics),
        in_flight=InFlight.model_construct(
            events=metrics.in_flight,
            transactions=metrics.in_flight_transactions,
            oldest_seconds=None if metrics.oldest is None else round(max(0.0, unix_time - metrics.oldest), 3),
        ),
        topics=_topics(metrics, unix_time),
        other_messages=dict(metrics.other_messages),
        latency=_latency(metrics),
        encode=Encode.model_construct(mean_us=_mean_us(metrics)),
        last_error=_last_error(metrics.trouble),
        history=_history(history if past else []),
        recovery=_recovery(metrics),
        polling=_polling(metrics),
    )


def _publisher(metrics: Metrics, identity: PublisherIdentity, unix_time: float) -> PublisherStatus:
    return PublisherStatus.model_construct(
        pid=identity.pid,
        started=moment(metrics.started),
        uptime_seconds=round(unix_time - metrics.started, 3),
        guarantee=identity.guarantee,
        accelerator=identity.accelerator,
        sessions=metrics.sessions,
        reconnects=metrics.reconnects,
    )


def _slot(metrics: Metrics, identity: PublisherIdentity, unix_time: float) -> SlotStatus:
    return SlotStatus.model_construct(
        name=identity.slot,
        publication=identity.publication,
        stream=metrics.stream or None,
        confirmed=_text(metrics.confirmed),
        confirmed_age_seconds=None if metrics.confirmed is None else round(unix_time - metrics.confirmed_since, 3),
        wal_end=_text(metrics.wal_end),
        retained_bytes=metrics.retained,
        limit_bytes=metrics.limit,
        safe_bytes=metrics.safe,
        wal_status=metrics.wal_status,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _totals(metrics: Metrics) -> Totals:
    return Totals.model_construct(
        events=sum(metrics.events.values()),
        bytes=sum(metrics.bytes.values()),
        delivered=metrics.delivered,
        transactions=metrics.transactions,
        poison=metrics.poison,
        dead_letters=metrics.dead_letters,
        skipped_replays=metrics.skipped_replays,
        sent_again=metrics.sent_again,
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


def _topics(metrics: Metrics, unix_time: float) -> dict[str, TopicStatus]:
    events, sizes, before = dict(metrics.events), dict(metrics.bytes), metrics.topics_before.copy()
    then, counts = next((each for each in before if unix_time - each[0] <= RATE_SECONDS + 1), (unix_time, events))
    seconds = max(unix_time - then, 1.0)
    return {
        topic: TopicStatus.model_construct(
            events=count,
            bytes=sizes.get(topic, 0),
            events_per_second=round((count - counts.get(topic, 0)) / seconds, 1),
        )
        for topic, count in sorted(events.items())
    }


def _latency(metrics: Metrics) -> Latency:
    latencies = sorted(metrics.latencies.copy())
    if not latencies:
        return Latency.model_construct(count=0)
    p50, p95, p99, slowest = (
        round(latencies[round(share * (len(latencies) - 1))] * 1000, 3) for share in (0.5, 0.95, 0.99, 1.0)
    )
    return Latency.model_construct(count=len(latencies), p50_ms=p50, p95_ms=p95, p99_ms=p99, max_ms=slowest)


def _mean_us(metrics: Metrics) -> float | None:
    count = sum(metrics.encode.counts)
    return round(metrics.encode.sum / count * 1e6, 3) if count else None


def _recovery(metrics: Metrics) -> RecoveryStatus | None:
    if metrics.recovered is None:
        return None
    sent, missing = metrics.recovered
    return RecoveryStatus.model_construct(sent=sent, missing=missing)


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


def _polling(metrics: Metrics) -> PollingStatus | None:
    relay = metrics.relay
    if relay is None and metrics.ticks is None:
        return None
    return PollingStatus.model_construct(
        ticks=metrics.ticks,
        batch_rows=metrics.batch_rows,
        batch_seconds=metrics.batch_seconds,
        open_ticks=relay.open_ticks if relay else None,
        unbatched_rows=relay.unbatched if relay else None,
        oldest_row_seconds=round(relay.oldest_seconds or 0.0, 3) if relay else None,
        strays=relay.strays if relay else None,
        numbers=relay.numbers if relay else None,
        batched_rows=relay.batched if relay else None,
    )

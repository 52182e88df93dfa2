"""What `/status` tells, and the page and `status` show: the vitals as one document of plain values.

Sizes are bytes, times ISO 8601 in UTC, LSNs as PostgreSQL writes them; null is what is not known.
"""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple

from cdc.telemetry.health import judge, lag_seconds
from cdc.telemetry.metrics import STREAMING, Sample, Trouble, Vitals

RATE_SECONDS: Final = 10.0
_ENOUGH_EVENTS: Final = 100  # to know how much WAL one takes


class Identity(NamedTuple):
    """What does not change while the process lives."""

    version: str
    pid: int
    slot: str
    publication: str
    guarantee: str
    accelerator: str  # native or python


def report(vitals: Vitals, identity: Identity, unix_time: float) -> dict[str, Any]:
    """The document, as of now."""
    condition = judge(vitals, unix_time)
    history = list(vitals.history.copy())
    recent = [sample for sample in history if unix_time - sample.unix_time <= RATE_SECONDS + 1]
    return {
        "version": identity.version,
        "time": moment(unix_time),
        "running": True,
        "state": condition.state.value,
        "ready": condition.ready,
        "summary": condition.summary,
        "since": moment(max(vitals.phase_since, vitals.state_since if vitals.phase == STREAMING else 0.0)),
        "publisher": _publisher(vitals, identity, unix_time),
        "slot": _slot(vitals, identity, unix_time),
        "lag": {
            "bytes": vitals.lag_bytes,
            "seconds": round(lag_seconds(vitals, unix_time), 3),
            "events": lag_events(vitals),
        },
        "rate": _rate(recent),
        "totals": _totals(vitals),
        "in_flight": {
            "events": vitals.in_flight,
            "transactions": vitals.in_flight_transactions,
            "oldest_seconds": None if vitals.oldest is None else round(max(0.0, unix_time - vitals.oldest), 3),
        },
        "topics": _topics(vitals, unix_time),
        "latency": _latency(vitals),
        "encode": {"mean_us": _mean_us(vitals)},
        "last_error": _trouble(vitals.trouble),
        "history": _history(history),
    }


def moment(unix_time: float) -> str:
    """A time as text: ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lag_events(vitals: Vitals) -> int | None:
    """Events in flight, and an estimate of those that are not read yet: by the WAL that an event has taken so far."""
    if vitals.received is None or vitals.wal_end is None:
        return vitals.in_flight
    unread = max(0, vitals.wal_end - vitals.received)
    passed = vitals.received - (vitals.began or vitals.received)
    if vitals.read < _ENOUGH_EVENTS or passed <= 0:
        return vitals.in_flight
    return vitals.in_flight + round(unread * vitals.read / passed)


def _publisher(vitals: Vitals, identity: Identity, unix_time: float) -> dict[str, object]:
    return {
        "pid": identity.pid,
        "started": moment(vitals.started),
        "uptime_seconds": round(unix_time - vitals.started, 3),
        "guarantee": identity.guarantee,
        "accelerator": identity.accelerator,
        "sessions": vitals.sessions,
        "reconnects": vitals.reconnects,
    }


def _slot(vitals: Vitals, identity: Identity, unix_time: float) -> dict[str, object]:
    return {
        "name": identity.slot,
        "publication": identity.publication,
        "stream": vitals.stream or None,
        "confirmed": _text(vitals.confirmed),
        "confirmed_age_seconds": None if vitals.confirmed is None else round(unix_time - vitals.confirmed_since, 3),
        "wal_end": _text(vitals.wal_end),
        "retained_bytes": vitals.retained,
        "limit_bytes": vitals.limit,
        "safe_bytes": vitals.safe,
        "wal_status": vitals.wal_status,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _totals(vitals: Vitals) -> dict[str, int]:
    return {
        "events": sum(vitals.events.values()),
        "bytes": sum(vitals.bytes.values()),
        "delivered": vitals.delivered,
        "transactions": vitals.transactions,
        "poison": vitals.poison,
        "dead_letters": vitals.dead_letters,
        "skipped_replays": vitals.skipped_replays,
        "sent_again": vitals.sent_again,
    }


def _rate(recent: list[Sample]) -> dict[str, float]:
    seconds = recent[-1].unix_time - recent[0].unix_time if recent else 0.0
    if seconds <= 0:
        return {"events_per_second": 0.0, "bytes_per_second": 0.0, "transactions_per_second": 0.0}
    first, last = recent[0], recent[-1]
    return {
        "events_per_second": round((last.delivered - first.delivered) / seconds, 1),
        "bytes_per_second": round((last.bytes - first.bytes) / seconds, 1),
        "transactions_per_second": round((last.transactions - first.transactions) / seconds, 1),
    }


def _topics(vitals: Vitals, unix_time: float) -> dict[str, dict[str, float]]:
    events, sizes, before = dict(vitals.events), dict(vitals.bytes), vitals.topics_before.copy()
    then, counts = next((each for each in before if unix_time - each[0] <= RATE_SECONDS + 1), (unix_time, events))
    seconds = max(unix_time - then, 1.0)
    return {
        topic: {
            "events": count,
            "bytes": sizes.get(topic, 0),
            "events_per_second": round((count - counts.get(topic, 0)) / seconds, 1),
        }
        for topic, count in sorted(events.items())
    }


def _latency(vitals: Vitals) -> dict[str, float | None]:
    """Of the last transactions, from commit to Kafka's confirmation."""
    latencies = sorted(vitals.latencies.copy())
    if not latencies:
        return {"count": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None, "max_ms": None}
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    last = len(latencies) - 1
    return {"count": len(latencies)} | {
        name: round(latencies[round(share * last)] * 1000, 3) for name, share in shares.items()
    }


def _mean_us(vitals: Vitals) -> float | None:
    count = sum(vitals.encode.counts)
    return round(vitals.encode.sum / count * 1e6, 3) if count else None


def _trouble(trouble: Trouble | None) -> dict[str, str] | None:
    if trouble is None:
        return None
    return {"time": moment(trouble.unix_time), "kind": trouble.kind, "message": trouble.message}


def _history(history: list[Sample]) -> dict[str, object]:
    pairs = list(pairwise(history))
    return {
        "interval_seconds": 1,
        "times": [round(after.unix_time, 3) for _, after in pairs],
        "events_per_second": [
            round((after.delivered - before.delivered) / max(after.unix_time - before.unix_time, 0.001), 1)
            for before, after in pairs
        ],
        "lag_bytes": [after.lag_bytes for _, after in pairs],
        "latency_ms": [
            None
            if after.delivery_seconds is None or after.delivered == before.delivered
            else round(after.delivery_seconds * 1000, 3)
            for before, after in pairs
        ],
    }

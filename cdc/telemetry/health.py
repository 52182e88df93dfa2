"""Judges the publisher's metrics: one state, whether it is ready, and a sentence for operators.

A publisher is ready when it works or waits for a condition that ends by itself, and not ready when it needs a restart
or an operator: restarting a publisher because Kafka is down makes an outage worse.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from cdc.quantities import size
from cdc.telemetry.metrics import FAILED, HELD, RECOVERING, STANDBY, STARTING, STOPPED, STOPPING, WAITING, Metrics

ALIVE_SECONDS: Final = 60.0
"""A loop whose last turn is longer ago is blocked; each of its waits is shorter."""
BLOCKED_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 2.0  # beyond the time within which PostgreSQL should have answered
HELD_SECONDS: Final = 5.0  # PostgreSQL may take a moment to notice that a connection has ended
BEHIND_SECONDS: Final = 5.0
BEHIND_BYTES: Final = 33_554_432  # two segments of WAL
RECENT_SECONDS: Final = 10.0


class State(StrEnum):
    """States of a publisher."""

    STARTING = "starting"
    IDLE = "idle"
    STREAMING = "streaming"
    CATCHING_UP = "catching_up"
    BLOCKED_BY_KAFKA = "blocked_by_kafka"
    BLOCKED_BY_REGISTRY = "blocked_by_registry"
    BLOCKED_BY_POSTGRES = "blocked_by_postgres"
    STANDBY = "standby"
    RECOVERING = "recovering"
    STALLED = "stalled"
    SLOT_LOST = "slot_lost"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


WORDS: Final = {
    **{state: state.replace("_", " ") for state in State},
    State.BLOCKED_BY_KAFKA: "blocked by Kafka",
    State.BLOCKED_BY_REGISTRY: "blocked by the registry",
    State.BLOCKED_BY_POSTGRES: "blocked by PostgreSQL",
}
NOT_READY: Final = frozenset(
    {State.STARTING, State.STALLED, State.SLOT_LOST, State.FAILED, State.STOPPING, State.STOPPED}
)
_BLOCKED_BY: Final = {
    "KafkaUnavailable": State.BLOCKED_BY_KAFKA,
    "KafkaRefused": State.BLOCKED_BY_KAFKA,
    "Fenced": State.BLOCKED_BY_KAFKA,
    "RegistryUnavailable": State.BLOCKED_BY_REGISTRY,
}


class Condition(NamedTuple):
    """State of a publisher; `summary` begins with the state in words."""

    state: State
    ready: bool
    summary: str


def judge(metrics: Metrics, unix_time: float) -> Condition:
    """Judge the condition at `unix_time`."""
    state, why = _judge(metrics, unix_time)
    # A publisher that has never streamed is not ready, regardless of the cause: a rollout must not continue.
    ready = state not in NOT_READY and (metrics.sessions > 0 or state == State.STANDBY)
    return Condition(state, ready, f"{WORDS[state]}: {why}" if why else WORDS[state])


def alive(metrics: Metrics, monotonic: float) -> bool:
    """Whether the loop turns; one that has ended and only reports its error counts as alive."""
    return metrics.phase in (FAILED, STOPPED) or monotonic - metrics.turned_monotonic < ALIVE_SECONDS


def _judge(metrics: Metrics, now: float) -> tuple[State, str]:
    phase, trouble = metrics.phase, metrics.trouble
    if phase in (STARTING, STOPPING, STOPPED):
        return State(phase), metrics.reason
    if phase == FAILED:
        lost = trouble is not None and trouble.kind == "SlotLost"
        return State.SLOT_LOST if lost else State.FAILED, metrics.reason
    if phase == RECOVERING:
        return State.RECOVERING, metrics.reason
    if phase == WAITING:
        return _BLOCKED_BY.get(trouble.kind if trouble else "", State.BLOCKED_BY_POSTGRES), metrics.reason
    if phase == HELD and now - metrics.phase_since > HELD_SECONDS:
        return State.STALLED, metrics.reason
    if phase in (STANDBY, HELD):
        return State.STANDBY, "another publisher is active; this one takes over when it ends"
    return _streaming(metrics, now)


def _streaming(metrics: Metrics, now: float) -> tuple[State, str]:
    silent = metrics.silent_seconds
    if silent > metrics.status_seconds + SILENT_SECONDS:
        return State.STALLED, f"PostgreSQL has sent nothing for {silent:.0f} s, although a reply was requested"
    waiting = metrics.waiting_seconds(now)
    if waiting > BLOCKED_SECONDS:
        return _blocked(metrics, waiting)
    unread = 0 if metrics.wal_end is None or metrics.received is None else metrics.wal_end - metrics.received
    recent = metrics.in_flight > 0 or delivered_lately(metrics, now)
    behind = metrics.lag_seconds(now)
    waits = metrics.relay.oldest_seconds if metrics.relay else None
    if waits is not None and waits > BEHIND_SECONDS:
        return State.CATCHING_UP, f"the oldest row that is in no batch is {waits:,.0f} s old"
    if unread > BEHIND_BYTES or (recent and behind > BEHIND_SECONDS):
        unread_wal = "" if metrics.relay else f" and {size(unread)} of WAL"
        return State.CATCHING_UP, f"{behind:,.0f} s{unread_wal} behind"
    if recent:
        return State.STREAMING, ""
    return State.IDLE, "every committed event is delivered"


def _blocked(metrics: Metrics, seconds: float) -> tuple[State, str]:
    if metrics.waits_for == "registry":
        return State.BLOCKED_BY_REGISTRY, f"an event has waited {seconds:.0f} s for a schema id"
    if metrics.waits_for:
        return State.BLOCKED_BY_KAFKA, f"an event has waited {seconds:.0f} s for the metadata of its topic"
    return (
        State.BLOCKED_BY_KAFKA,
        f"no event has been confirmed for {seconds:.0f} s; {metrics.in_flight:,} events are in flight",
    )


def delivered_lately(metrics: Metrics, now: float) -> bool:
    """Whether Kafka has confirmed an event within the last ten seconds."""
    for sample in reversed(metrics.history.copy()):
        if now - sample.unix_time > RECENT_SECONDS:
            return sample.delivered != metrics.delivered
    return metrics.delivered > 0

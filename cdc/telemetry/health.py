"""What the publisher's vitals mean: one state, whether it is ready, and a sentence for people.

Ready is everything that passes by itself or works as it should. It is not when a restart or a person is needed: an
orchestrator that restarts a publisher because Kafka is down only adds to the trouble.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from cdc.telemetry.metrics import FAILED, HELD, STANDBY, STARTING, STOPPED, STOPPING, WAITING, Vitals

ALIVE_SECONDS: Final = 60.0
"""A loop that has not come around for so long stands still; each of its waits is shorter."""
BLOCKED_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 2.0  # beyond the time within which PostgreSQL should have answered
HELD_SECONDS: Final = 5.0  # PostgreSQL may take a moment to notice that a connection has ended
BEHIND_SECONDS: Final = 5.0
BEHIND_BYTES: Final = 33_554_432  # two segments of WAL
RECENT_SECONDS: Final = 10.0
JUST_SECONDS: Final = 2.0


class State(StrEnum):
    """The states, in the words of machines."""

    STARTING = "starting"
    IDLE = "idle"
    STREAMING = "streaming"
    CATCHING_UP = "catching_up"
    BLOCKED_BY_KAFKA = "blocked_by_kafka"
    BLOCKED_BY_REGISTRY = "blocked_by_registry"
    BLOCKED_BY_POSTGRES = "blocked_by_postgres"
    STANDBY = "standby"
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
    """What the publisher is in; `summary` begins with the state in words."""

    state: State
    ready: bool
    summary: str


def judge(vitals: Vitals, unix_time: float) -> Condition:
    """The condition at `unix_time`."""
    state, why = _judge(vitals, unix_time)
    # What has never worked is not ready, whoever is to blame: a rollout must not go on over it.
    ready = state not in NOT_READY and (vitals.sessions > 0 or state == State.STANDBY)
    return Condition(state, ready, f"{WORDS[state]}: {why}" if why else WORDS[state])


def alive(vitals: Vitals, monotonic: float) -> bool:
    """Whether the loop turns; one that has ended for good, and only tells why, counts as alive."""
    return vitals.phase in (FAILED, STOPPED) or monotonic - vitals.turned_monotonic < ALIVE_SECONDS


def _judge(vitals: Vitals, now: float) -> tuple[State, str]:
    phase, trouble = vitals.phase, vitals.trouble
    if phase in (STARTING, STOPPING, STOPPED):
        return State(phase), vitals.reason
    if phase == FAILED:
        lost = trouble is not None and trouble.kind == "SlotLost"
        return State.SLOT_LOST if lost else State.FAILED, vitals.reason
    if phase == WAITING:
        return _BLOCKED_BY.get(trouble.kind if trouble else "", State.BLOCKED_BY_POSTGRES), vitals.reason
    if phase == HELD and now - vitals.phase_since > HELD_SECONDS:
        return State.STALLED, vitals.reason
    if phase in (STANDBY, HELD):
        return State.STANDBY, "another publisher reads the slot; this one takes over when it ends"
    return _streaming(vitals, now)


def _streaming(vitals: Vitals, now: float) -> tuple[State, str]:
    silent = vitals.silent_seconds
    if silent > vitals.status_seconds + SILENT_SECONDS:
        return State.STALLED, f"PostgreSQL has said nothing for {silent:.0f} s, although asked to"
    waiting = 0.0 if vitals.waiting_since is None else now - vitals.waiting_since
    if waiting > BLOCKED_SECONDS:
        return _blocked(vitals, waiting)
    unread = 0 if vitals.wal_end is None or vitals.received is None else vitals.wal_end - vitals.received
    recent = vitals.in_flight > 0 or delivered_lately(vitals, now)
    behind = lag_seconds(vitals, now)
    if unread > BEHIND_BYTES or (recent and behind > BEHIND_SECONDS):
        return State.CATCHING_UP, f"{behind:,.0f} s and {max(unread, 0) / 1e6:,.1f} MB of WAL behind"
    if recent:
        return State.STREAMING, ""
    return State.IDLE, "all that was committed is delivered"


def _blocked(vitals: Vitals, seconds: float) -> tuple[State, str]:
    if vitals.waits_for == "registry":
        return State.BLOCKED_BY_REGISTRY, f"a schema's id has been missing for {seconds:.0f} s"
    if vitals.waits_for:
        return State.BLOCKED_BY_KAFKA, f"an event has waited {seconds:.0f} s for its topic to be known"
    return State.BLOCKED_BY_KAFKA, f"it has confirmed nothing for {seconds:.0f} s; {vitals.in_flight:,} events wait"


def delivered_lately(vitals: Vitals, now: float, seconds: float = RECENT_SECONDS) -> bool:
    """Whether Kafka has confirmed something within the last seconds."""
    for sample in reversed(vitals.history.copy()):
        if now - sample.unix_time > seconds:
            return sample.delivered != vitals.delivered
    return vitals.delivered > 0


def lag_seconds(vitals: Vitals, now: float) -> float:
    """Age of the oldest transaction in flight; without one, that of the last when it has just been delivered."""
    if vitals.oldest is not None:
        return max(0.0, now - vitals.oldest)
    if vitals.latencies and delivered_lately(vitals, now, JUST_SECONDS):
        return vitals.latencies[-1]
    return 0.0

"""The figures of one run of one contestant."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contestant. Figures that do not apply or cannot be measured here are None."""

    contestant: str
    events: int
    rate: float | None  # events/s between 5 % and 100 %
    whole_rate: float  # events/s from the start of the process to the last event
    cpu_us: float | None  # of the process, all threads, whole run, per event
    peak_mb: float | None
    walsender_us: float | None  # CPU per event of PostgreSQL's process that sends
    broker_us: float | None  # Kafka's
    first_seconds: float | None = None  # from the start of the process to the first event
    postgres_us: float | None = None  # of all of PostgreSQL's processes
    resident: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, MB


def between(before: float | None, after: float | None) -> float | None:
    """Return the seconds between two readings of a clock, if there are both."""
    return None if before is None or after is None else after - before


def per_event(seconds: float | None, events: int) -> float | None:
    """Return microseconds per event."""
    return None if seconds is None else seconds / events * 1e6

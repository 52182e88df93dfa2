"""Where a publisher stands: what its endpoint tells of it, or what was found out without it, in one shape.

What comes from an endpoint is checked here: whoever listens there may be a stranger.
"""

from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from cdc import __version__
from cdc.telemetry.health import State

NEEDS_A_PERSON: Final = frozenset({State.STALLED, State.SLOT_LOST, State.FAILED, State.STOPPED})

_LONGEST: Final = 600  # points of a history
_TOPICS: Final = 10_000

# Of somebody else: neither a terminal nor a person is to be flooded.
Word = Annotated[str, StringConstraints(max_length=300)]
Sentence = Annotated[str, StringConstraints(max_length=10_000)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A part of the JSON. What is not known is None, and what a later version adds is passed on."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class Publisher(Part):
    """The process; it is None when none has answered."""

    pid: int | None = None
    started: Word | None = None
    uptime_seconds: Amount | None = None
    guarantee: Word | None = None
    accelerator: Word | None = None
    sessions: Count | None = None
    reconnects: Count | None = None


class Slot(Part):
    """The replication slot; `active_pid` is the process of PostgreSQL that serves its reader, where that is known."""

    name: Word
    publication: Word | None = None
    stream: Word | None = None
    confirmed: Word | None = None
    confirmed_age_seconds: Amount | None = None
    wal_end: Word | None = None
    retained_bytes: int | None = None
    limit_bytes: Count | None = None
    safe_bytes: int | None = None
    wal_status: Word | None = None
    active_pid: int | None = None


class Lag(Part):
    """How far the publisher is behind."""

    bytes: Count | None = None
    seconds: Amount | None = None
    events: Count | None = None


class Rate(Part):
    """Of the last seconds."""

    events_per_second: Amount | None = None
    bytes_per_second: Amount | None = None
    transactions_per_second: Amount | None = None


class Totals(Part):
    """Since the process began."""

    events: Count | None = None
    bytes: Count | None = None
    delivered: Count | None = None
    transactions: Count | None = None
    poison: Count | None = None
    dead_letters: Count | None = None
    skipped_replays: Count | None = None
    sent_again: Count | None = None


class InFlight(Part):
    """Read, and not confirmed by Kafka."""

    events: Count | None = None
    transactions: Count | None = None
    oldest_seconds: Amount | None = None


class Topic(Part):
    """What went to one topic."""

    events: Count | None = None
    bytes: Count | None = None
    events_per_second: Amount | None = None


class Latency(Part):
    """From commit to Kafka's confirmation."""

    count: Count | None = None
    p50_ms: Amount | None = None
    p95_ms: Amount | None = None
    p99_ms: Amount | None = None
    max_ms: Amount | None = None


class Encode(Part):
    """How long it takes to make a record of a row."""

    mean_us: Amount | None = None


class LastError(Part):
    """The last error of the process."""

    time: Word | None = None
    kind: Word | None = None
    message: Sentence = ""


class History(Part):
    """The last minutes, the newest last."""

    interval_seconds: Amount = 1.0
    times: list[float] = Field(default=[], max_length=_LONGEST)
    events_per_second: list[float | None] = Field(default=[], max_length=_LONGEST)
    lag_bytes: list[float | None] = Field(default=[], max_length=_LONGEST)
    latency_ms: list[float | None] = Field(default=[], max_length=_LONGEST)


class Memory(Part):
    """What Kafka remembers of the slot: the last record about it in the topic of positions."""

    confirmed: Word | None = None
    age_seconds: Amount | None = None


class Table(Part):
    """The outbox; `rows` is PostgreSQL's estimate."""

    name: Word
    rows: Count | None = None


class Report(Part):
    """All of it. `state` is None when nobody has answered."""

    version: Word
    time: Word
    running: bool | None
    state: State | None
    ready: bool | None = None
    summary: Sentence
    since: Word | None = None
    publisher: Publisher | None = None
    slot: Slot
    lag: Lag = Lag()
    rate: Rate = Rate()
    totals: Totals = Totals()
    in_flight: InFlight = InFlight()
    topics: dict[Word, Topic] = Field(default={}, max_length=_TOPICS)
    latency: Latency = Latency()
    encode: Encode = Encode()
    last_error: LastError | None = None
    history: History = History()
    # What `status` adds.
    source: Literal["endpoint", "database"] | None = None
    url: Word | None = None  # that was asked
    notes: list[Sentence] = Field(default=[], max_length=100)
    hint: Sentence | None = None  # what to do next
    memory: Memory | None = None
    table: Table | None = None
    refused: bool = Field(default=False, exclude=True)  # PostgreSQL refuses us, and waiting will not change that

    @property
    def exit_code(self) -> int:
        """What a probe is to think of it: 0 all is well, 1 a person is needed, 75 ask again."""
        if self.state in NEEDS_A_PERSON or self.refused:
            return 1
        return 75 if self.state is None or self.ready is False else 0

    def json_line(self) -> bytes:
        """One line, in the order of the fields."""
        return orjson.dumps(self.model_dump())


def parse(body: bytes, url: str) -> Report:
    """What an endpoint has answered. Raises ValueError, in a phrase, when no publisher speaks like that."""
    try:
        read: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ValueError("the answer is not JSON") from None
    if not isinstance(read, dict):
        raise ValueError("the answer is not a publisher's status")
    ours: dict[str, object] = {"source": "endpoint", "url": url, "notes": [], "hint": None, "refused": False}
    try:
        report = Report.model_validate(read | ours)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"][:2])[:60]
        raise ValueError(f"the answer is not a publisher's status ({where}: {problem['msg']})") from None
    if report.state is None or not report.running:
        raise ValueError("the answer is not that of a running publisher")
    return report


def unknown(slot: str, publication: str, time: str, summary: str, hint: str, *, refused: bool = False) -> Report:
    """When neither side answers."""
    return Report(
        version=__version__,
        time=time,
        running=None,
        state=None,
        summary=summary,
        hint=hint or None,
        refused=refused,
        slot=Slot(name=slot, publication=publication),
    )

"""The status document: built from a publisher's metrics or from its slot, served at `/status`, printed by `status`.

Sizes are bytes, times ISO 8601 in UTC, LSNs as PostgreSQL prints them; null means unknown. A publisher builds its own
document with `model_construct`, unchecked; `parse` checks one received over HTTP, as any program may listen there.
"""

from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from cdc import __version__
from cdc.telemetry.health import State

NEEDS_A_PERSON: Final = frozenset({State.STALLED, State.SLOT_LOST, State.FAILED, State.STOPPED})

_LONGEST: Final = 600  # points of a history
_TOPICS: Final = 10_000

# Limits for a document received over HTTP: it must not flood a terminal.
Word = Annotated[str, StringConstraints(max_length=300)]
Sentence = Annotated[str, StringConstraints(max_length=10_000)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """An object of the JSON. Fields that a later version adds are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class PublisherStatus(Part):
    """The publisher's process."""

    pid: int | None = None
    started: Word | None = None
    uptime_seconds: Amount | None = None
    guarantee: Word | None = None
    accelerator: Word | None = None
    sessions: Count | None = None
    reconnects: Count | None = None


class SlotStatus(Part):
    """The replication slot; `active_pid` is that of the walsender that serves its reader."""

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
    """Distance between commits and their confirmation; `seconds` is the age of the oldest unconfirmed commit."""

    bytes: Count | None = None
    seconds: Amount | None = None
    events: Count | None = None


class Rate(Part):
    """Means over the last ten seconds."""

    events_per_second: Amount | None = None
    bytes_per_second: Amount | None = None
    transactions_per_second: Amount | None = None


class Totals(Part):
    """Counters since the process started."""

    events: Count | None = None
    bytes: Count | None = None
    delivered: Count | None = None
    transactions: Count | None = None
    poison: Count | None = None
    dead_letters: Count | None = None
    skipped_replays: Count | None = None
    sent_again: Count | None = None


class InFlight(Part):
    """Events and transactions that were read and that Kafka has not confirmed."""

    events: Count | None = None
    transactions: Count | None = None
    oldest_seconds: Amount | None = None


class TopicStatus(Part):
    """Records sent to one topic."""

    events: Count | None = None
    bytes: Count | None = None
    events_per_second: Amount | None = None


class Latency(Part):
    """Percentiles of the last transactions, from commit to Kafka's confirmation."""

    count: Count | None = None
    p50_ms: Amount | None = None
    p95_ms: Amount | None = None
    p99_ms: Amount | None = None
    max_ms: Amount | None = None


class Encode(Part):
    """Time to encode a row as a record."""

    mean_us: Amount | None = None


class LastError(Part):
    """The last error of the process."""

    time: Word | None = None
    kind: Word | None = None
    message: Sentence = ""


class History(Part):
    """Samples of the last five minutes, the newest last."""

    interval_seconds: Count = 1
    times: list[float] = Field(default=[], max_length=_LONGEST)
    events_per_second: list[float | None] = Field(default=[], max_length=_LONGEST)
    lag_bytes: list[int | None] = Field(default=[], max_length=_LONGEST)
    latency_ms: list[float | None] = Field(default=[], max_length=_LONGEST)


class RecoveryStatus(Part):
    """The last recovery of the slot by this process, or one that has not ended: events sent, of how many."""

    sent: Count | None = None
    missing: Count | None = None


class PollingStatus(Part):
    """The relay where rows come from queries; `oldest_row_seconds` is the age of the oldest row that is in no batch."""

    holder: Word | None = None
    ticks: Count | None = None
    open_ticks: Count | None = None
    batch_rows: Count | None = None
    batch_seconds: Amount | None = None
    unconfirmed_rows: Count | None = None
    unbatched_rows: Count | None = None
    oldest_row_seconds: Amount | None = None
    strays: Count | None = None
    numbers: int | None = None
    batched_rows: Count | None = None


class RecordStatus(Part):
    """The last record about the slot in the positions topic."""

    confirmed: Word | None = None
    age_seconds: Amount | None = None


class TableStatus(Part):
    """The outbox table; `rows` is PostgreSQL's estimate."""

    name: Word
    rows: Count | None = None


class StatusDocument(Part):
    """Status of one publisher. `state` is None when neither the publisher nor PostgreSQL answers."""

    version: Word
    time: Word
    running: bool | None
    state: State | None
    ready: bool | None = None
    summary: Sentence
    since: Word | None = None
    publisher: PublisherStatus | None = None
    slot: SlotStatus
    lag: Lag = Lag()
    rate: Rate = Rate()
    totals: Totals = Totals()
    in_flight: InFlight = InFlight()
    topics: dict[Word, TopicStatus] = Field(default={}, max_length=_TOPICS)
    other_messages: dict[Word, Count] = Field(default={}, max_length=_TOPICS)
    """Logical messages that are no events, by prefix."""
    latency: Latency = Latency()
    encode: Encode = Encode()
    last_error: LastError | None = None
    history: History = History()
    recovery: RecoveryStatus | None = None
    polling: PollingStatus | None = None
    # Fields that the command `status` adds.
    source: Literal["endpoint", "database"] | None = None
    url: Word | None = None  # of the endpoint that was asked
    notes: list[Sentence] = Field(default=[], max_length=100)
    hint: Sentence | None = None  # what to do next
    memory: RecordStatus | None = None
    table: TableStatus | None = None
    refused: bool = Field(default=False, exclude=True)  # by PostgreSQL, which no waiting will change

    @property
    def exit_code(self) -> int:
        """Exit code of `status`: 0 working or waiting, 1 needs an operator, 75 not ready or no answer."""
        if self.state in NEEDS_A_PERSON or self.refused:
            return 1
        return 75 if self.state is None or self.ready is False else 0

    def served(self) -> dict[str, Any]:
        """The JSON object of `/status`, in the order of the fields."""
        return self.model_dump(mode="json", exclude={**dict.fromkeys(_ADDED, True), "slot": {"active_pid"}})

    def json_line(self) -> bytes:
        """The JSON of `status --json`, in one line."""
        return orjson.dumps(self.model_dump())


_ADDED: Final = ("source", "url", "notes", "hint", "memory", "table")


def parse(body: bytes, url: str) -> StatusDocument:
    """Check a body received from `url`. Raises ValueError, with a phrase, when it is not a running publisher's."""
    try:
        read: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ValueError("the answer is not JSON") from None
    if not isinstance(read, dict):
        raise ValueError("the answer is not a publisher's status")
    ours: dict[str, object] = {"source": "endpoint", "url": url, "notes": [], "hint": None, "refused": False}
    try:
        document = StatusDocument.model_validate(read | ours)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"][:2])[:60]
        raise ValueError(f"the answer is not a publisher's status ({where}: {problem['msg']})") from None
    if document.state is None or not document.running:
        raise ValueError("the answer is not that of a running publisher")
    return document


def unknown(
    slot: str, publication: str, time: str, summary: str, hint: str, *, refused: bool = False
) -> StatusDocument:
    """Build the document for a publisher when neither it nor PostgreSQL answers."""
    return StatusDocument(
        version=__version__,
        time=time,
        running=None,
        state=None,
        summary=summary,
        hint=hint or None,
        refused=refused,
        slot=SlotStatus(name=slot, publication=publication),
    )

"""A small outbox and its stream: what the tests of the later stages share."""

import json
from collections.abc import Sequence
from typing import Any

from cdc.delivery.confirmation import Confirmation
from cdc.delivery.deduplication import SentBefore
from cdc.delivery.reports import Positions
from cdc.delivery.sequence import Sequences
from cdc.delivery.session import Session
from cdc.lsn import LSN
from cdc.outbox.columns import Columns, Header
from cdc.outbox.events import Outbox
from cdc.outbox.keys import TEXT_KEYS, Keys
from cdc.outbox.topic_template import TopicTemplate
from cdc.records.encoding import DeadLetters, Encoding
from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import Make
from cdc.records.record import Record
from cdc.records.router import Encoder
from cdc.replication.messages import Begin, Commit, Insert, LogicalMessage, Relation
from cdc.replication.prefixes import Prefixes
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row
from tests.unit import frames
from tests.unit.frames import Cell

TABLE = ("public", "outbox")
STREAM = "0badcafe"
OID = 16449
UUID, TEXT, JSONB, BYTEA, BOOL, INT4, INT8 = 2950, 25, 3802, 17, 16, 23, 20
EVENT_ID = "00112233-4455-6677-8899-aabbccddeeff"
COMMIT_TIME = 838_857_600_123_456  # 2026-08-01 00:00:00.123456 UTC, from PostgreSQL's epoch
COMMIT_TIME_MS = 1_785_542_400_123

COLUMNS = [("id", UUID), ("aggregatetype", TEXT), ("aggregateid", TEXT), ("type", TEXT), ("payload", JSONB)]
RELATION = frames.relation(OID, "outbox", COLUMNS)


class Upper:
    """An encoder whose work shows; it refuses the payload `bad`."""

    name = "Upper"
    plan = None

    def encode(self, payload: bytes, header: bytes) -> bytes:
        if payload == b"bad":
            raise ValueError("$.n: is bad")
        return header + payload.upper()

    def encode_value(self, value: Any, header: bytes) -> bytes:
        return header + repr(value).encode()


class Encoders:
    """Takes every event type but `Unknown`."""

    def get(self, event_type: str, /) -> Encoder | None:
        return None if event_type == "Unknown" else Upper()

    def asks_again(self, event_type: str) -> bool:  # noqa: ARG002 - a registry's would look
        return False

    def missing(self, event_type: str) -> str:
        return f"no contract for event type {event_type!r} in schemas"


class Framing:
    """Headers by topic; one that is None is not known yet."""

    def __init__(self, **headers: bytes | None) -> None:
        self.headers = headers

    def header(self, topic: str, contract: str) -> bytes | None:  # noqa: ARG002
        return self.headers.get(topic, b"")

    def close(self) -> None:
        pass


class Topics:
    """Topics that all exist but those of which the largest record is given as None."""

    changes = 0
    most = 1_000_000

    def __init__(self, **largest: int | None) -> None:
        self.known = largest
        self.refused: dict[str, str] = {}

    def largest(self, topic: str, /) -> int | None:
        return self.known.get(topic, 1_000_000)

    def partitions(self, topic: str, /) -> int | None:
        return None if self.largest(topic) is None else 1


def outbox(
    template: str = "outbox.event.{aggregatetype}",
    headers: Sequence[str] = (),
    columns: Columns | None = None,
    *,
    tombstones: bool = False,
    iso: bool = False,
    keys: Keys = TEXT_KEYS,
    time: str | None = None,
) -> Outbox:
    named = [Header.parse(header) for header in headers]
    made = TopicTemplate(template)
    return Outbox(STREAM, columns or Columns(), made, named, tombstones=tombstones, iso=iso, keys=keys, time=time)


def row(*cells: Cell, relation: Relation = RELATION, commit_lsn: int = 200, index: int = 0) -> Row:
    transaction = Ledger().begin(LSN(commit_lsn), COMMIT_TIME_MS)
    return Row(transaction, index, relation, frames.row(*cells))


class Target(Session):
    """A session whose records have names for their parts."""

    def resume(self) -> list[Record]:  # type: ignore[override]
        return [Record(*record) for record in super().resume()]

    def receive(self, frames: list[bytes]) -> list[Record]:  # type: ignore[override]
        return [Record(*record) for record in super().receive(frames)]


def session(
    ledger: Ledger | None = None,
    status_seconds: float = 10.0,
    template: str = "outbox.event.{aggregatetype}",
    framing: Framing | None = None,
    topics: Topics | None = None,
    dead_letters: DeadLetters | None = None,
    positions: Positions | None = None,
    sent_before: SentBefore | None = None,
    sequences: Sequences | None = None,
    make: Make = Unrolled,
    prefixes: Prefixes | None = None,
) -> Target:
    reader = outbox(template)
    encoding = Encoding(reader, Encoders(), framing or Framing())
    return Target(
        TABLE,
        reader,
        encoding,
        topics or Topics(),
        Confirmation(ledger or Ledger(), status_seconds, positions),
        dead_letters,
        sent_before=sent_before,
        sequences=sequences,
        make=make,
        prefixes=prefixes,
    )


def event(payload: str | None = "{}", key: str | None = "o-1", event_type: str = "OrderPlaced") -> bytes:
    """The frame of one outbox row; every row of the stream has the same LSN (A5)."""
    return frames.xlog(Insert(OID, frames.row(EVENT_ID, "order", key, event_type, payload)), 100)


def begin(commit_lsn: int) -> bytes:
    return frames.xlog(Begin(LSN(commit_lsn), COMMIT_TIME, 7), commit_lsn)


def commit(commit_lsn: int) -> bytes:
    return frames.xlog(Commit(0, LSN(commit_lsn), LSN(commit_lsn + 8), COMMIT_TIME), commit_lsn)


def content(payload: str = "{}", key: str = "o-1", event_type: str = "OrderPlaced", **more: object) -> bytes:
    """What a message holds that stands for a row, with its payload as it is."""
    members = {"id": EVENT_ID, "aggregatetype": "order", "aggregateid": key, "type": event_type, **more}
    return f'{json.dumps(members)[:-1]}, "payload": {payload}}}'.encode()


def message(
    held: bytes | None = None, prefix: str = "outbox", *, lsn: int = 150, transactional: bool = True, sent: int = 0
) -> bytes:
    """The frame of one logical message; `sent` is the time at which the server sent it."""
    frame = frames.xlog(LogicalMessage(transactional, LSN(lsn), prefix, content() if held is None else held), lsn)
    return frame[:17] + sent.to_bytes(8, "big") + frame[25:]


def relation(described: Relation = RELATION) -> bytes:
    return frames.xlog(described)


def transaction(commit_lsn: int, *rows: bytes) -> list[bytes]:
    """All frames of a transaction; it ends at `commit_lsn` + 8."""
    return [begin(commit_lsn), relation(), *rows, commit(commit_lsn)]

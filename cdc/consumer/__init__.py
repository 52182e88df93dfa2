"""Library for consumers: decode values, apply each event exactly once, and detect lost events."""

from cdc.consumer.consumer import Consumer
from cdc.consumer.decoding import Decoder, Undecodable, decode
from cdc.consumer.errors import AlreadyRun, CommittedEarly, HandlerFailed, InboxError, InvalidId, MissingId, Rejected
from cdc.consumer.events import Event
from cdc.consumer.gaps import GapDetector
from cdc.consumer.inbox import AsyncInbox, Inbox
from cdc.consumer.retries import Retry
from cdc.consumer.verdicts import (
    Duplicate,
    Foreign,
    Gap,
    InOrder,
    Recounted,
    Reordered,
    Repaired,
    Replayed,
    Reread,
    Started,
    Verdict,
)
from cdc.records.headers import Position

__all__ = [
    "AlreadyRun",
    "AsyncInbox",
    "CommittedEarly",
    "Consumer",
    "Decoder",
    "Duplicate",
    "Event",
    "Foreign",
    "Gap",
    "GapDetector",
    "HandlerFailed",
    "InOrder",
    "Inbox",
    "InboxError",
    "InvalidId",
    "MissingId",
    "Position",
    "Recounted",
    "Rejected",
    "Reordered",
    "Repaired",
    "Replayed",
    "Reread",
    "Retry",
    "Started",
    "Undecodable",
    "Verdict",
    "decode",
]

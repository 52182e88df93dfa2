"""The record of a recovery that has begun and not ended, in the topic of positions; only a recovery writes it.

| part  | value                                                                                             |
|-------|---------------------------------------------------------------------------------------------------|
| key   | `{system_identifier}/{slot}/recovery`                                                             |
| value | JSON: version, slot, phase, bound, order, old (state of the lost slot), failover, guarantee,      |
|       | begun, automatic, backfill, at (LSN of its beginning), start (of the new slot), sent, missing,    |
|       | perhaps_again, losses, failed                                                                     |

As long as it exists, nothing streams from the slot, nothing is purged, and no other command creates the slot. Its
deletion is the last act of the recovery.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from cdc.errors import CdcError, RecoveryUnfinished
from cdc.lsn import LSN

VERSION: Final = 1
NAME: Final = "recovery"
ROUNDS: Final = "rounds"  # phases: events are sent while there is no slot
SLOT: Final = "slot"  # the new slot is being created, or exists and is held
RUN_IT: Final = "run: cdc-publisher recover"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryRecord:
    """A recovery of one slot; times are milliseconds since 1970."""

    slot: str
    phase: str = ROUNDS
    bound: Mapping[str, Any] = field(default_factory=dict)
    order: str = ""
    old: str = ""  # why the old slot could not be read
    failover: bool = False  # of the old slot
    guarantee: str = ""
    begun: int = 0
    automatic: bool = False  # begun by `start`
    backfill: bool = False  # of a slot that did not exist before
    at: LSN | None = None  # of its beginning: its positions are not below
    start: LSN | None = None  # of the new slot
    sent: int = 0
    missing: int | None = None  # events to send in this round, with those that were sent; None until they are counted
    perhaps_again: int = 0
    losses: Mapping[str, Any] = field(default_factory=dict)  # by bound, the rows that were deleted since
    failed: str = ""  # why the last attempt ended

    def encode(self) -> bytes:
        """The value of its record."""
        return orjson.dumps(
            {
                "version": VERSION,
                "slot": self.slot,
                "phase": self.phase,
                "bound": dict(self.bound),
                "order": self.order,
                "old": self.old,
                "failover": self.failover,
                "guarantee": self.guarantee,
                "begun": self.begun,
                "automatic": self.automatic,
                "backfill": self.backfill,
                "at": str(self.at) if self.at is not None else None,
                "start": str(self.start) if self.start is not None else None,
                "sent": self.sent,
                "missing": self.missing,
                "perhaps_again": self.perhaps_again,
                "losses": dict(self.losses),
                "failed": self.failed,
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> "RecoveryRecord | None":
        """Read a record's value; None for the record of a topic that is called like it. Raises ValueError."""
        try:
            read = orjson.loads(value)
            if "topic_id" in read:
                return None
            at, start, missing = read.get("at"), read.get("start"), read.get("missing")
            return cls(
                slot=str(read["slot"]),
                phase=str(read["phase"]),
                bound=dict(read["bound"]),
                order=str(read.get("order", "")),
                old=str(read.get("old", "")),
                failover=bool(read.get("failover", False)),
                guarantee=str(read.get("guarantee", "")),
                begun=int(read.get("begun", 0)),
                automatic=bool(read.get("automatic", False)),
                backfill=bool(read.get("backfill", False)),
                at=LSN.parse(at) if at else None,
                start=LSN.parse(start) if start else None,
                sent=int(read.get("sent", 0)),
                missing=None if missing is None else int(missing),
                perhaps_again=int(read.get("perhaps_again", 0)),
                losses=dict(read.get("losses") or {}),
                failed=str(read.get("failed", "")),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a record of a recovery ({error!r})") from None

    @property
    def progress(self) -> str:
        """How far it has come, in a phrase."""
        if self.missing is None:
            return "its missing events are not counted yet"
        return f"{self.sent} of {self.missing} events sent"

    def unfinished(self) -> CdcError:
        """The error for all that must wait for its end."""
        return RecoveryUnfinished(
            f"a recovery of replication slot {self.slot!r} has begun and not ended ({self.progress})", hint=RUN_IT
        )


def recovery_key(slot: str) -> str:
    """The key of the record; `slot` is that of the slot's record."""
    return f"{slot}/{NAME}"

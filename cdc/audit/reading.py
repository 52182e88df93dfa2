"""What a record says of itself: whose it is, which event it is, how it came."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from cdc.audit.range import Range
from cdc.audit.verdicts import PUBLISHED, REPAIRED, REPLAYED, Record
from cdc.records import dead_letters

_POSITION: Final = re.compile(r"([0-9a-f]{8})-([0-9A-F]{16})-([0-9A-F]{8,15})")
_LARGEST: Final = (1 << 63) - 1
_STREAMS: Final = 1000  # of others, that are told apart


class Reading:
    """Reads records of `streams`, of which the first is the oldest; `others` counts those of strangers by stream."""

    def __init__(self, streams: Sequence[str], wanted: Range) -> None:
        self.others: Counter[str] = Counter()
        self._streams = {stream: number for number, stream in enumerate(streams, 1)}
        self._names = list(streams)
        self._range = wanted

    def record(
        self,
        number: int,
        place: tuple[str, int, int],
        key: bytes | None,
        timestamp: int,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> Record | None:
        """A record of ours, or None. `place` is topic, partition and offset."""
        found: Mapping[str, bytes | None] = dict(reversed(headers))
        event_id = (found.get("id") or b"").decode(errors="replace")
        position = (found.get("cdc-position") or b"").decode(errors="replace")
        match = _POSITION.fullmatch(position)
        if match is None:
            if dead_letters.REPAIRED not in found or not event_id:
                self._other("")
                return None
            judged = not self._range.by_lsn and self._range.holds(event_id, 0, timestamp)
            return Record(number, event_id, 0, 0, 0, *place, key, timestamp, None, REPAIRED, judged)
        stream = self._streams.get(match[1])
        if stream is None:
            self._other(match[1])
            return None
        lsn, index = min(int(match[2], 16), _LARGEST), int(match[3], 16)
        sequence = (found.get("cdc-sequence") or b"").decode(errors="replace")
        return Record(
            number,
            event_id or position,
            stream,
            lsn,
            index,
            *place,
            key,
            timestamp,
            int(sequence) if sequence.isascii() and sequence.isdigit() and len(sequence) < 19 else None,
            REPLAYED if dead_letters.REPLAYED in found else PUBLISHED,
            self._range.holds(event_id, lsn, timestamp),
        )

    def number(self, position: str) -> tuple[int, int, int] | None:
        """Stream, LSN and index of a position of ours, or None."""
        match = _POSITION.fullmatch(position)
        if match is None or match[1] not in self._streams:
            return None
        return self._streams[match[1]], min(int(match[2], 16), _LARGEST), int(match[3], 16)

    def position(self, stream: int, lsn: int, index: int) -> str | None:
        """A position as its header has it; None of a record that has none."""
        return f"{self._names[stream - 1]}-{lsn:016X}-{index:08X}" if stream else None

    def _other(self, stream: str) -> None:
        if stream in self.others or len(self.others) < _STREAMS:
            self.others[stream] += 1
        else:
            self.others["more"] += 1

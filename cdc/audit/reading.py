"""Reads the headers of records: the stream, the event, and how it was sent."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from cdc.audit import verdicts
from cdc.audit.books import LARGEST
from cdc.audit.range import Range
from cdc.audit.verdicts import TopicRecord
from cdc.records.headers import COMMITTED, ID, POSITION, REPAIRED, REPLAYED, SEQUENCE, Position, committed, sequence

_STREAMS: Final = 1000  # of others, that are counted separately


class RecordReader:
    """Reads the records of `streams`, of which the first is the oldest; `others` counts other records by stream."""

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
    ) -> TopicRecord | None:
        """Return a record, or None when it has neither a position nor an id. `place` is topic, partition, offset.

        A record of another program or stream is foreign, and counted in `others`.
        """
        found = {name: (value or b"").decode(errors="replace") for name, value in reversed(headers)}
        timestamp = committed(found.get(COMMITTED, ""), timestamp)
        event_id, text = found.get(ID, ""), found.get(POSITION, "")
        position = Position.parse(text)
        stream = None if position is None else self._streams.get(position.stream)
        if position is None or stream is None:
            repaired = position is None and REPAIRED in found and bool(event_id)
            if not repaired:
                self._other("" if position is None else position.stream)
            kind = verdicts.REPAIRED if repaired else verdicts.FOREIGN
            return self._without_position(number, event_id, place, key, timestamp, kind) if event_id else None
        lsn = min(position.commit_lsn, LARGEST)
        return TopicRecord(
            number,
            event_id or text,
            stream,
            lsn,
            position.index,
            *place,
            key,
            timestamp,
            sequence(found.get(SEQUENCE, "")),
            verdicts.REPLAYED if REPLAYED in found else verdicts.PUBLISHED,
            self._range.holds(event_id, lsn, timestamp),
        )

    def _without_position(
        self, number: int, event_id: str, place: tuple[str, int, int], key: bytes | None, timestamp: int, kind: int
    ) -> TopicRecord:
        judged = not self._range.by_lsn and self._range.holds(event_id, 0, timestamp)
        return TopicRecord(number, event_id, 0, 0, 0, *place, key, timestamp, None, kind, judged)

    def number(self, position: str) -> tuple[int, int, int] | None:
        """Return stream, LSN and index of a position; None of other text. Other streams have negative numbers."""
        found = Position.parse(position)
        if found is None:
            return None
        stream = self._streams.get(found.stream, -1 - int(found.stream, 16))
        return stream, min(found.commit_lsn, LARGEST), found.index

    def position(self, stream: int, lsn: int, index: int) -> str | None:
        """Format a position as in its header; None of a record without one."""
        return str(Position(self._names[stream - 1], lsn, index)) if stream else None

    def _other(self, stream: str) -> None:
        if stream in self.others or len(self.others) < _STREAMS:
            self.others[stream] += 1
        else:
            self.others["more"] += 1

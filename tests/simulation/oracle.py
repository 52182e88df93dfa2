"""What must hold, checked at every step: nothing lost, nothing reordered, nothing invented, nothing confirmed early.

The oracle knows what was committed from the writers, and what Kafka holds from the brokers; it asks the publisher
nothing.
"""

from typing import TYPE_CHECKING

from cdc.delivery.positions import SlotRecord
from cdc.lsn import LSN
from cdc.records.partitioner import partition
from cdc.records.record import Record
from tests.simulation.rows import Row, Tx
from tests.simulation.world import Violation, World

if TYPE_CHECKING:
    from tests.simulation.kafka import Stored
    from tests.simulation.sink import SimSink

DEAD_LETTERS = "cdc.dead-letter"
POSITIONS = "cdc.positions"
STREAM = "{:08x}"


class Oracle:
    """The ledger of one world."""

    def __init__(self, world: World, partitions: int, *, dead_letters: bool, headers: tuple[str, ...] = ()) -> None:
        self.world = world
        self.partitions = partitions
        self.dead_letters = dead_letters
        self.headers = headers
        self.rows: list[Row] = []
        self.txs: list[Tx] = []  # of the current history, in commit order
        self.duplicates = 0
        self.recounted = False  # other tables are the outbox's: the last transaction is compared with the topics then
        self._vanished = False  # records were deleted that may be needed for that
        self.overlapped = False  # a record of an earlier producer came after a later one had begun
        self._emptied: set[tuple[str, str, int]] = set()
        self._numbers: dict[tuple[str, str, int], int] = {}
        self.statuses = 0
        self._settled = 0  # how many of them are known to be durable
        self._timeline = 1
        self._by_id: dict[str, Row] = {}
        self._turns: dict[tuple[str, int], list[Row]] = {}
        self._front: dict[tuple[str, int], int] = {}

    # PostgreSQL

    def committed(self, tx: Tx) -> None:
        self.txs.append(tx)
        for row in tx.rows:
            self.rows.append(row)
            self._by_id[row.id] = row
            row.topic = f"outbox.event.{row.aggregate}"
            row.place = (row.topic, partition(row.key.encode(), self.partitions))
            line = self._turns.setdefault(row.place, [])
            row.turn = len(line)
            line.append(row)

    def gone(self, txs: list[Tx]) -> None:
        """A failover took them back; what Kafka has of them is a phantom that only a synchronous standby prevents."""
        for tx in txs:
            self.txs.remove(tx)
            for row in tx.rows:
                row.excused = True
        self._settled = 0

    def timeline(self, number: int) -> None:
        self._timeline = number

    def skip(self, before: int) -> None:
        """The slot was moved by another hand: what it has passed will never be sent."""
        for tx in self.txs:
            if tx.commit_lsn < before:
                for row in tx.rows:
                    row.skipped = row.skipped or not row.durable

    def vanished(self, records: "list[Stored]") -> None:
        """Note records that expired, or were compacted."""
        self._vanished |= bool(records)

    def excuse(self) -> None:
        """Record that an operator was informed of skipped rows, which will not be published."""
        for row in self.rows:
            row.excused = row.excused or row.skipped

    def confirms(self, lsn: int, sent: int, before: int) -> None:
        """A status update leaves the process: I6."""
        self.statuses += 1
        if lsn < before:
            raise Violation(f"A11: confirmed {LSN(lsn)} after {LSN(before)}")
        if lsn > sent:
            raise Violation(f"I6: confirmed {LSN(lsn)}, but only {LSN(sent)} was sent")
        self._durable_up_to(lsn, "I6: confirmed")

    def _durable_up_to(self, lsn: int, what: str) -> None:
        txs = self.txs
        while self._settled < len(txs) and txs[self._settled].end_lsn <= lsn:
            for row in txs[self._settled].rows:
                if not (row.durable or row.excused or row.skipped):
                    at = LSN(row.tx.commit_lsn)
                    raise Violation(f"{what} {LSN(lsn)}, but row {row.number} of {at} is not in Kafka")
            self._settled += 1

    # Kafka

    def end_of(self, record: Record) -> int:
        """Where the transaction of a record ends."""
        row = self._by_id.get(str(dict(record.headers).get("id")))
        if row is None:
            raise Violation(f"I5: a record that no committed row asked for: {record}")
        return row.tx.end_lsn

    def told(self, mark: SlotRecord) -> None:
        """A record of our own position leaves the process: the slot may be moved there as soon as it is delivered."""
        if mark.timeline == self._timeline:
            self._durable_up_to(mark.confirmed, "B1: told Kafka of")

    def emptied(self, topic: str, numbers: set[int]) -> None:
        """Note partitions that are empty now, so that the numbers counted in them are unknown."""
        self._emptied |= {place for place in self._numbers if place[1] == topic and place[2] in numbers}

    def lost(self, record: Record) -> None:
        """Kafka has lost a record."""
        self.row(record).copies -= 1

    def shifted(self, record: Record) -> bool:
        """Whether sessions may have counted the rows of a record's transaction differently.

        One session passes over the rows of a child, another one counts them. Positions of other events differ then, and
        these are sent again after `--accept-changes`.
        """
        return any(each.in_child for each in self.row(record).tx.rows)

    def row(self, record: Record) -> Row:
        """The row of a record."""
        return self._by_id[str(dict(record.headers)["id"])]

    def appended(self, topic: str, number: int, record: Record, producer: "SimSink") -> None:
        """Consumers can see a record: I2 to I5."""
        last = producer.turns  # that its producer wrote before
        self.overlapped |= producer.superseded and not producer.exactly_once
        if topic == POSITIONS:
            self._passed(record)
            return
        self._numbered(topic, number, record)
        headers = dict(record.headers)
        row = self._by_id.get(str(headers.get("id")))
        if row is None:
            raise Violation(f"I5: a record that no committed row asked for: {record}")
        if topic == DEAD_LETTERS:
            if not (row.poison and self.dead_letters):
                raise Violation(f"I5: row {row.number} is no dead letter")
            if (record.key, record.value) != (row.key.encode(), row.value):
                raise Violation(f"C8: the dead letter of row {row.number} is {record}")
            row.dead += 1
            return
        self._same(row, topic, number, record)
        if row.poison and self.dead_letters:
            raise Violation(f"C8: row {row.number} is poison and was sent all the same")
        row.copies += 1
        if row.copies > 1:
            self.duplicates += 1
            unknown = self.shifted(record) or (self.recounted and self._vanished)
            if producer.exactly_once and row.by_transaction and not unknown:
                raise Violation(f"I4: row {row.number} was committed twice")
        row.by_transaction = producer.exactly_once
        if row.copies > row.handed:
            raise Violation(f"I4: row {row.number} is in Kafka {row.copies} times, and was read {row.handed} times")
        if last.get(row.place, -1) >= row.turn:
            raise Violation(f"I3: one producer wrote row {row.number} after a later one")
        last[row.place] = row.turn
        self._in_order(row)

    def _passed(self, record: Record) -> None:
        """A position stands in Kafka: everything up to it must, too."""
        mark = SlotRecord.decode(record.value) if record.value else None
        if mark is None or mark.position is None or mark.timeline != self._timeline:
            return
        for tx in self.txs:
            for row in tx.rows:
                beyond = (row.tx.commit_lsn, row.index) > mark.position
                if not (beyond or row.durable or row.excused or row.skipped):
                    raise Violation(f"I1: position {mark.position} passes row {row.number}, which is not in Kafka")

    def _numbered(self, topic: str, number: int, record: Record) -> None:
        """Numbers have no gap; but two producers that are not in transactions may write at the same time."""
        headers = dict(record.headers)
        if "cdc-sequence" not in headers:
            return
        stream = str(headers["cdc-position"])[:8]
        place, found = (stream, topic, number), int(str(headers["cdc-sequence"]))
        expected = self._numbers.get(place, 0) + 1
        anew = found == 1 and place in self._emptied
        self._emptied.discard(place)
        if found != expected and not (anew or self.overlapped):
            raise Violation(f"I4: number {found} came in {topic}[{number}], where {expected} was next")
        self._numbers[place] = found if anew else max(found, expected - 1)

    def _same(self, row: Row, topic: str, number: int, record: Record) -> None:
        position = f"{STREAM.format(row.tx.timeline)}-{row.tx.commit_lsn:016X}-{row.index:08X}"
        expected = (row.topic, row.key.encode(), row.value, row.tx.timestamp, position)
        headers = dict(record.headers)
        found = (topic, record.key, record.value, record.timestamp, headers.get("cdc-position"))
        # After a failover PostgreSQL sends old rows under its new timeline.
        same_position = str(found[4]).partition("-")[2] == position.partition("-")[2]
        if any(each.in_child for each in row.tx.rows):  # a session that does not know the child does not count its rows
            same_position = str(found[4]).split("-")[1] == position.split("-")[1]
        if found[:4] != expected[:4] or not same_position or row.place != (topic, number):
            raise Violation(f"I5: row {row.number} became {found} in partition {number}, not {expected}")
        tenant = row.tenant if "tenant" in self.headers else None
        if headers.get("tenant") != tenant:
            raise Violation(f"I5: row {row.number} has tenant {headers.get('tenant')!r}, not {tenant!r}")

    def _in_order(self, row: Row) -> None:
        line, front = self._turns[row.place], self._front.get(row.place, 0)
        while front < len(line) and (self._accounted(line[front]) or line[front] is row):
            front += 1
        self._front[row.place] = front
        if row.turn > front:
            raise Violation(f"I2: row {row.number} came before row {line[front].number} of the same partition")

    def _accounted(self, row: Row) -> bool:
        return row.copies > 0 or row.excused or row.skipped or (row.poison and self.dead_letters)

    # The end

    def newest(self, topics: "dict[str, list[Stored]]") -> None:
        """Raise Violation where the newest record of a key is not its newest event: compaction keeps that alone.

        Not where two producers have written at the same time: at-least-once delivery cannot stop the older one.
        """
        if self.overlapped:
            return
        lines = self._turns.values()
        events = {(row.place, row.key): row for line in lines for row in line if row.copies}
        # A failover has taken back what Kafka has: what is newest there is nobody's fault.
        for gone in (row for line in lines for row in line if row.excused):
            events.pop((gone.place, gone.key), None)
        for topic, seen in topics.items():
            if topic == DEAD_LETTERS:
                continue
            records = {(number, record.key): record for number, record, _ in seen}
            for (number, key), record in records.items():
                row = self._by_id.get(str(dict(record.headers)["id"]))
                newest = events.get(((topic, number), (key or b"").decode()))
                if row and newest and row is not newest:
                    raise Violation(f"I2: of key {newest.key!r} row {row.number} is newest, not row {newest.number}")

    def missing(self) -> list[Row]:
        """Rows that are in no topic."""
        return [row for row in self.rows if not (row.durable or row.excused)]

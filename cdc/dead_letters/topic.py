"""Reads the dead-letter topic from its beginning to its current end; see `cdc.records.dead_letters` for its records.

Which letters were replayed is known only at the end of the topic. Until then they are kept in a temporary file, so that
memory stays flat however many there are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from cdc import errors
from cdc.config.settings import Settings
from cdc.kafka.client import reader
from cdc.kafka.cluster import is_missing
from cdc.kafka.errors import kafka_error
from cdc.kafka.reading import read as read_range
from cdc.records.dead_letters import DeadLetter, Marker, Wanted, read
from cdc.records.headers import headers_of
from cdc.scratch import Scratch

SECONDS: Final = 30.0  # of silence until Kafka counts as unavailable
_GAP: Final = 5000  # reading so many records is faster than seeking beyond them

T = TypeVar("T")


class Entry(NamedTuple):
    """A dead letter without its payload, and its place in the topic."""

    position: str
    id: str
    type: str
    topic: str
    key: bytes | None
    timestamp: int
    error: str
    message: str
    size: int  # of the payload
    partition: int
    offset: int
    replayed: str | None  # when


class DeadLetterTopic:
    """The records of the dead-letter topic. Raises KafkaError when it is missing, KafkaUnavailable, ConfigError."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.topics.dead_letter
        self._consumer = reader(
            settings.kafka,
            self.name,
            queued_max_messages_kbytes=16_384,
            queued_min_messages=20_000,
            fetch_wait_max_ms=50,  # each fetch at the end of the topic waits for so long
        )
        try:
            self._partitions = self._asked(self._find)
        except BaseException:
            self.close()
            raise
        self._reached: dict[int, int] = {}

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def read(self, since: int | None = None) -> Iterator[tuple[DeadLetter | Marker, int, int]]:
        """Yield letters and markers with partition and offset: all, or from a time on, in milliseconds.

        A second call yields only those that were added since.
        """
        if not self._reached:
            self._reached = self._asked(lambda: self._begin(since))
        ends = self._asked(lambda: {number: self._ends(number)[1] for number in self._partitions})
        for message in self._run(self._reached, ends):
            found = _letter(message)
            if found is not None:
                yield found, message.partition() or 0, message.offset() or 0
        self._reached = ends

    def fetch(self, entries: Iterable[Entry]) -> dict[str, DeadLetter]:
        """Return whole letters by position; those that the topic has deleted are left out."""
        wanted = {(entry.partition, entry.offset) for entry in entries}
        found: dict[str, DeadLetter] = {}
        for partition, first, last in _runs(wanted):
            for message in self._run({partition: first}, {partition: last + 1}):
                letter = _letter(message) if (message.partition(), message.offset()) in wanted else None
                if isinstance(letter, DeadLetter):
                    found[letter.position] = letter
        return found

    def _find(self) -> list[int]:
        found = self._consumer.list_topics(self.name, timeout=SECONDS).topics[self.name]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def _ends(self, partition: int) -> tuple[int, int]:
        low, high = self._consumer.get_watermark_offsets(TopicPartition(self.name, partition), timeout=SECONDS)
        return low, high

    def _begin(self, since: int | None) -> dict[int, int]:
        starts = {number: self._ends(number)[0] for number in self._partitions}
        if since is None:
            return starts
        asked = [TopicPartition(self.name, number, max(0, since)) for number in self._partitions]
        # Negative: no record is as new. Then reading starts at the end, which is read afterwards.
        return {
            part.partition: part.offset if part.offset >= 0 else self._ends(part.partition)[1]
            for part in self._consumer.offsets_for_times(asked, timeout=SECONDS)
        }

    def _run(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Message]:
        """Yield the records from `starts` to before `ends`, by partition."""
        reached = {(self.name, number): starts[number] for number in ends}
        portions = read_range(self._consumer, reached, {place: ends[place[1]] for place in reached}, SECONDS)
        while portion := self._asked(lambda: next(portions, None)):
            yield from portion

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except KafkaException as error:
            raise self._failed(error.args[0]) from None

    def _failed(self, error: KafkaError) -> errors.CdcError:
        if is_missing(KafkaException(error)) or error.code() == KafkaError._UNKNOWN_TOPIC:
            return errors.KafkaError(
                f"topic {self.name!r} does not exist",
                hint="check [topics] dead_letter, or run: cdc-publisher outbox init",
            )
        return kafka_error(error, f"reading topic {self.name!r}")


def _letter(message: Message) -> DeadLetter | Marker | None:
    return read(_bytes(message.key()), _bytes(message.value()), message.timestamp()[1], headers_of(message))


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _runs(wanted: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield partition, first and last offset of the ranges to read for single records."""
    run: tuple[int, int, int] | None = None
    for partition, offset in sorted(wanted):
        if run and (run[0] != partition or offset - run[2] > _GAP):
            yield run
            run = None
        run = (partition, run[1] if run else offset, offset)
    if run:
        yield run


_TABLES: Final = """
create table letters (stream text, position text, id, type, topic, key, timestamp int, error, message, size int,
  partition int, offset int, primary key (stream, position)) without rowid;
create table markers (position text primary key, at text) without rowid;
"""
_SELECT: Final = "from letters left join markers using (position) where (? or at is null)"


class LetterIndex:
    """The selected letters, without payloads, each once, and which of them were replayed.

    They are in an unnamed temporary file, which uses the disk only when there are many; it is deleted with this object.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._notes = Scratch("the list of dead letters", _TABLES, cache_kilobytes=32_768)

    def close(self) -> None:
        """Delete the file."""
        self._notes.close()

    def take(self, found: Iterable[tuple[DeadLetter | Marker, int, int]], *, markers_only: bool = False) -> None:
        """Add the selected letters. Of a letter that was sent twice the first counts."""
        with self._notes.filling():
            for letter, partition, offset in found:
                if isinstance(letter, Marker):
                    self._notes.run("insert or ignore into markers values (?, ?)", *letter)
                elif not markers_only and self._wanted.matches(letter):
                    self._notes.run(
                        "insert or ignore into letters values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        letter.position[:8],
                        *_row(letter, partition, offset),
                    )

    def count(self, *, replayed: bool) -> int:
        """Return the number of letters, with or without those that were replayed."""
        (count,) = self._notes.first(f"select count(*) {_SELECT}", replayed)
        return int(count)

    def widths(self) -> dict[str, int]:
        """Return the length of the longest text of each column."""
        names = ("id", "type", "key", "topic")
        lengths = ", ".join(f"max(length({name}))" for name in names)
        found = self._notes.first(f"select {lengths} from letters")
        return {name: length or 0 for name, length in zip(names, found, strict=True)}

    def entries(self, *, replayed: bool, limit: int | None = None) -> Iterator[Entry]:
        """Yield the letters in the order of their positions; streams by their oldest letter."""
        left = -1 if limit is None else limit
        streams = list(self._notes.rows("select stream from letters group by stream order by min(timestamp)"))
        for (stream,) in streams:
            rows = self._notes.rows(
                "select position, id, type, topic, key, timestamp, error, message, size, partition, offset, at"
                f" {_SELECT} and stream = ? order by position limit ?",
                replayed,
                stream,
                left,
            )
            for row in rows:
                left -= 1
                yield Entry(*row)
            if left == 0:
                return


def _row(letter: DeadLetter, partition: int, offset: int) -> tuple[object, ...]:
    facts = (letter.position, letter.id, letter.type, letter.topic, letter.key, letter.timestamp)
    return (*facts, letter.error, letter.message, len(letter.payload or b""), partition, offset)

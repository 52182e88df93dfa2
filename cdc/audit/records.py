"""Reads records and dead letters of topics into the books of an audit or a recovery."""

from collections.abc import Collection, Iterator

from cdc.audit.books import Books
from cdc.audit.range import Range
from cdc.audit.reading import RecordReader
from cdc.audit.topics import TopicReader
from cdc.audit.verdicts import FOREIGN, TopicRecord
from cdc.records import dead_letters
from cdc.records.dead_letters import DeadLetter, Marker
from cdc.records.headers import headers_of


class TopicRecords:
    """The records of `topics`, as `reading` reads them; dead letters are added to `books` at once."""

    def __init__(
        self,
        topics: TopicReader,
        books: Books,
        reading: RecordReader,
        dead_letter: str,
        wanted: Range,
        only: Collection[str] = (),
    ) -> None:
        self.count = 0
        self._topics = topics
        self._books = books
        self._reading = reading
        self._dead_letter = dead_letter
        self._wanted = wanted
        self._only = only
        self._letters = 0  # of other streams

    def read(self) -> Iterator[tuple[int, list[TopicRecord]]]:
        """Yield the records up to the ends that were found, with the number of messages read so far."""
        done = 0
        for messages in self._topics.read():
            records: list[TopicRecord] = []
            for message in messages:
                headers = headers_of(message)
                key, topic = message.key(), message.topic() or ""
                key = key.encode() if isinstance(key, str) else key
                timestamp = message.timestamp()[1]
                if topic == self._dead_letter:
                    records += self._letter(dead_letters.read(key, b"", timestamp, headers), timestamp)
                    continue
                self.count += 1
                place = topic, message.partition() or 0, message.offset() or 0
                record = self._reading.record(self.count, place, key, timestamp, headers)
                if record is not None:
                    records.append(record)
            done += len(messages)
            yield done, records

    def _letter(self, letter: DeadLetter | Marker | None, timestamp: int) -> Iterator[TopicRecord]:
        """Add a letter to the books. One of another stream may be of another outbox: then its id, if that is a number,
        is no proof, and the letter is yielded as a foreign record."""
        position = self._reading.number(letter.position) if letter is not None else None
        if position is None:
            return
        if isinstance(letter, DeadLetter) and letter.id and position[0] < 0 and self._wanted.numeric:
            self._letters += 1
            place = letter.topic, 0, 0
            yield TopicRecord(
                -self._letters, letter.id, 0, 0, 0, *place, letter.key, timestamp, None, FOREIGN, judged=False
            )
        elif isinstance(letter, DeadLetter):
            judged = self._wanted.holds(letter.id, position[1], timestamp)
            judged &= not self._only or letter.topic in self._only
            self._books.add_letter(letter.id or letter.position, position, judged=judged)
        else:
            self._books.add_marker(position)

"""Reads the records that another program sent from a slot before the publisher took it over, and knows them by id.

Its records have no positions of the publisher; what identifies their events is the header `id`.
"""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Final

from confluent_kafka import KafkaException, Message

from cdc.background import Background
from cdc.config.settings import Settings
from cdc.delivery.positions import ForeignWindow
from cdc.errors import KafkaUnavailable
from cdc.kafka.client import reader
from cdc.kafka.cluster import Cluster, is_missing
from cdc.kafka.errors import kafka_error
from cdc.kafka.reading import Place, read
from cdc.records.headers import ID, POSITION, headers_of
from cdc.scratch import Scratch

SECONDS: Final = 60.0
"""How long a silent broker, or an open transaction, may hold up the reading of a topic."""

_TABLE: Final = """
create table found (topic text, id text, primary key (topic, id)) without rowid;
"""


class ForeignRecords:
    """Reads each topic when it is first asked for: see `cdc.delivery.ports.Foreign`."""

    def __init__(self, settings: Settings, window: ForeignWindow) -> None:
        self._settings = settings
        self._own = window.own
        self._offsets = window.offsets
        self._lock = threading.Lock()
        self._found: Scratch | None = Scratch("the foreign records of the topics", _TABLE)
        self._background: Background[str, bool] = Background("foreign records")

    def holds(self, topic: str, event_id: str) -> bool | None:
        """Return whether a topic has the event; None while it is being read."""
        if self._background.ask(topic, self._read, topic) is None:
            return None
        with self._lock:
            query = "select 1 from found where topic = ? and id = ?"
            return bool(self._found and self._found.first(query, topic, event_id))

    def count(self, topic: str) -> int:
        """Return how many ids a topic has, which was read."""
        with self._lock:
            return self._found.first("select count(*) from found where topic = ?", topic)[0] if self._found else 0

    def forget(self) -> None:
        """Drop all ids."""
        with self._lock:
            if self._found:
                self._found.close()
                self._found = None

    def close(self) -> None:
        """Stop reading."""
        self._background.close()
        self.forget()

    def _read(self, topic: str) -> bool:
        for messages in read_topic(self._settings, topic, self._offsets.get(topic, {}), SECONDS):
            ids = (foreign_id(dict(headers_of(message)), own=self._own) for message in messages)
            self._add(topic, [each for each in ids if each is not None])
        return True

    def _add(self, topic: str, ids: list[str]) -> None:
        with self._lock:
            if self._found is None:
                raise KafkaUnavailable("the reading of foreign records was stopped")
            with self._found.filling():
                self._found.many("insert or ignore into found values (?, ?)", [(topic, each) for each in ids])


def read_topic(settings: Settings, topic: str, offsets: Mapping[int, int], seconds: float) -> Iterator[list[Message]]:
    """Yield the records of a topic, from `offsets` to its end; none when it does not exist.

    Raises KafkaUnavailable when no record arrives for `seconds`, and KafkaError.
    """
    ends: dict[Place, int] | None = None
    try:
        ends = {(topic, number): end for number, end in Cluster(settings.kafka).ends(topic).items()}
        begin = {place: min(offsets.get(place[1], 0), end) for place, end in ends.items()}
        with contextlib.closing(reader(settings.kafka, "cdc-publisher-foreign", fetch_wait_max_ms=50)) as consumer:
            yield from read(consumer, begin, ends, seconds)
    except KafkaException as error:
        if ends is None and is_missing(error):
            return
        raise kafka_error(error.args[0], f"reading topic {topic!r}") from None


def foreign_id(headers: Mapping[str, bytes | None], *, own: bool = False) -> str | None:
    """Return the id of a record of another program; None without an id, and but for `own` for a publisher's records.

    Kafka Connect's JsonConverter puts header values in quotes, or with a schema into an object.
    """
    value = headers.get(ID)
    if value is None or (POSITION in headers and not own):
        return None
    text = value.decode(errors="replace")
    if POSITION in headers:
        return text
    if text[:1] not in ('"', "{"):
        return text
    try:
        parsed = json.loads(text)
    except ValueError:
        return text
    return str(parsed.get("payload", text)) if isinstance(parsed, dict) else str(parsed)

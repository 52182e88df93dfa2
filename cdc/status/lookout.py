"""Finds the status of a publisher: from its endpoint, otherwise from the database and its last position in Kafka."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cdc.config.masking import scrubber, secrets
from cdc.config.settings import Settings, require
from cdc.delivery.positions import latest
from cdc.errors import CdcError, ConfigError, PostgresError
from cdc.kafka import positions
from cdc.lsn import LSN
from cdc.postgres import slots
from cdc.postgres.connection import connect
from cdc.quantities import moment
from cdc.status import client, database, from_relay, from_slot
from cdc.status.client import NoAnswer
from cdc.status.document import History, StatusDocument, unknown
from cdc.status.from_slot import Remembered, SlotFacts

CONNECT_SECONDS: Final = 3
KAFKA_SECONDS: Final = 3.0
_KAFKA_EVERY_SECONDS: Final = 30.0
_HISTORY: Final = 300

NO_LISTEN: Final = "[http] listen is not set"


class Lookout:
    """Looks once per call; keeps its database connection, and for 30 s the position in Kafka.

    `url` is an endpoint of any publisher; without it, only a publisher of the slot in the settings is accepted.
    """

    def __init__(self, settings: Settings, url: str | None = None) -> None:
        self._settings = settings
        self._given = url
        self._scrub: Callable[[str], str] = scrubber(
            secrets(settings.model_dump()) | {os.environ.get("PGPASSWORD", "")}
        )
        self._connection: database.Conn | None = None
        self._key: str | None = None
        self._remembered = Remembered(asked=False)
        self._remembered_at = float("-inf")
        self._doubted: LSN | None = None  # position of the slot when Kafka was last read for it
        self._lags: deque[tuple[float, int | None]] = deque(maxlen=_HISTORY)

    def close(self) -> None:
        """Close the connection to the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def look(self) -> StatusDocument:
        """Look once. Raises ConfigError, and nothing else."""
        url = None
        try:
            url = self._url()
            document = self._asked(url)
        except NoAnswer as silence:
            why = self._scrub(str(silence))
            if not self._settings.postgres.dsn:
                return self._unreachable(url, why)
            return self._from_database(url, why)
        self.close()  # not needed while the publisher answers
        return document

    def _url(self) -> str:
        if self._given:
            return self._given
        if self._settings.http.listen is None:
            raise NoAnswer(NO_LISTEN)
        return client.url_of(self._settings.http.listen)

    def _asked(self, url: str) -> StatusDocument:
        try:
            document = client.ask(url)
        except NoAnswer as silence:
            raise NoAnswer(f"the publisher does not answer at {url} ({silence})") from None
        slot = self._settings.postgres.slot
        if not self._given and document.slot.name != slot:
            raise NoAnswer(f"at {url} the publisher of another slot answers, {document.slot.name!r:.80}")
        return document

    def _unreachable(self, url: str | None, why: str) -> StatusDocument:
        """Return the document for a publisher that does not answer, without a database to read."""
        if url is None:
            require(self._settings, kafka=False)  # raises ConfigError for missing settings
        note = f"{why}, and [postgres] dsn is not set"
        return self._unknown(url, note, "nothing is known", "check the address, and that the publisher runs")

    def _from_database(self, url: str | None, why: str) -> StatusDocument:
        note = f"{why}: from the database alone"
        try:
            document = self._relay() if self._settings.postgres.polls else self._slot()
        except ConfigError:
            raise
        except CdcError as error:
            self.close()
            refused = isinstance(error, PostgresError)
            return self._unknown(url, f"{why}, and the database cannot be read", error.message, error.hint, refused)
        notes = [note, *map(self._scrub, document.notes)]
        return document.model_copy(update={"url": url, "notes": notes, "history": self._history(document)})

    def _unknown(self, url: str | None, note: str, summary: str, hint: str, refused: bool = False) -> StatusDocument:
        postgres, now = self._settings.postgres, moment(time.time())
        document = unknown(postgres.slot, postgres.publication, now, self._scrub(summary), hint, refused=refused)
        return document.model_copy(update={"url": url, "notes": [note]})

    def _relay(self) -> StatusDocument:
        return from_relay.look(self._connected(), self._settings)

    def _slot(self) -> StatusDocument:
        connection = self._connected()
        if self._key is None:
            self._key = f"{slots.system_identifier(connection)}/{self._settings.postgres.slot}"
        seen = database.look(connection, self._settings)
        return from_slot.describe(seen, self._memory(seen))

    def _connected(self) -> database.Conn:
        if self._connection is None or self._connection.closed:
            self._key = None
            self._connection = connect(
                self._settings.postgres.dsn,
                application_name="cdc-publisher status",
                connect_timeout=CONNECT_SECONDS,
            )
        return self._connection

    def _memory(self, seen: SlotFacts) -> Remembered:
        """Return the slot's last position in Kafka, read again when it is old or the slot is ahead of it."""
        if not self._settings.kafka or self._key is None:
            return Remembered(asked=False)
        due = time.monotonic() >= self._remembered_at + _KAFKA_EVERY_SECONDS
        if due or (self._doubted != seen.confirmed and from_slot.doubtful(seen, self._remembered)):
            self._remembered = _remembered(self._settings, self._key)
            self._remembered_at, self._doubted = time.monotonic(), seen.confirmed
        return self._remembered

    def _history(self, document: StatusDocument) -> History:
        """Return the lag of each look so far."""
        self._lags.append((time.time(), document.lag.bytes))
        return History(times=[at for at, _ in self._lags], lag_bytes=[lag for _, lag in self._lags])


def _remembered(settings: Settings, key: str) -> Remembered:
    try:
        memory = positions.remembered(settings, key, KAFKA_SECONDS)
        records = list(positions.dated(settings, key, KAFKA_SECONDS))
        mark = latest(value for value, _ in records)
    except CdcError as error:
        return Remembered(problem=error.message)
    except ValueError as error:
        return Remembered(problem=f"topic {settings.topics.positions!r} holds something else: {error}")
    if mark is None or mark.dropped:
        return Remembered(recovery=memory.recovery)
    age = max(0.0, time.time() - records[-1][1] / 1000)
    return Remembered(mark.confirmed, mark.timeline, age, recovery=memory.recovery)


def looked(settings: Settings, url: str | None) -> StatusDocument:
    """Return the status document of one look."""
    with contextlib.closing(Lookout(settings, url)) as lookout:
        return lookout.look()

"""The work of `audit --repair`: what is missing is made again from its rows, and sent in the order of commits."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final

from cdc.audit.run import Auditing
from cdc.audit.verdicts import Row
from cdc.config.settings import Settings
from cdc.dead_letters.run import Told
from cdc.dead_letters.sending import Replay, Sending
from cdc.dead_letters.workbench import Workbench, now
from cdc.errors import CdcError, PoisonEvent, Temporary
from cdc.logs.format import plain
from cdc.lsn import LSN
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.records.encoding import Encoding
from cdc.records.headers import POSITION, REPAIRED
from cdc.records.record import Record
from cdc.replication.messages import Relation, TupleData
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row as Inserted

_BATCH: Final = 500


class Repairing:
    """Sends what an audit found missing. Raises ConfigError when the contracts cannot be used."""

    def __init__(self, settings: Settings, audit: Auditing, *, dry: bool) -> None:
        self.sent = self.stays = 0
        self._audit = audit
        self._workbench = Workbench(settings, dry=dry)
        self._replay = Replay(settings, self._workbench.destinations, f"repair-{settings.postgres.slot}")
        self._outbox = Outbox(
            audit.stream,
            settings.outbox.parts,
            TopicTemplate(settings.topics.name),
            settings.outbox.headers,
            tombstones=settings.outbox.tombstones,
        )
        self._encoding: Encoding = self._workbench.encoding(self._outbox)
        self._dead_letter = settings.topics.dead_letter

    def begin(self) -> int:
        """End every other repair of the slot, and look what has come since the audit; returns how many are missing."""
        self._replay.begin()
        audit = self._audit
        audit.topics.look({*audit.destinations, self._dead_letter} & audit.topics.existing())
        for _, records in audit.read():
            audit.books.found(record.id for record in records)
        audit.books.found(audit.books.dead())
        return audit.books.missing_count()

    def close(self) -> None:
        """Leave; what is not committed is taken back."""
        self._replay.close()
        self._workbench.close()

    def dry_run(self) -> Iterator[Told]:
        """Say what would become of each."""
        for batch in self._batches():
            for row, record in self._records(batch, now()):
                if isinstance(record, CdcError):
                    yield self._stays(row, record)
                else:
                    self.sent += 1
                    size = len(record.value or b"")
                    yield Told(f"would send {plain(row.id)} to {record.topic} ({size} bytes)", stays=False)

    def run(self) -> Iterator[Told]:
        """Send, and tell what stays. Raises KafkaUnavailable, and KafkaError when another repair has begun."""
        for batch in self._batches():
            sendings: list[tuple[Row, Sending]] = []
            for row, record in self._records(batch, now()):
                if isinstance(record, CdcError):
                    yield self._stays(row, record)
                else:
                    sendings.append((row, Sending(record)))
            refused = self._replay.send([sending for _, sending in sendings])
            for place, (row, _) in enumerate(sendings):
                if place in refused:
                    yield self._stays(row, refused[place])
                else:
                    self.sent += 1
                    yield Told("", stays=False)

    def _batches(self) -> Iterator[list[Row]]:
        missing = self._audit.books.missing()
        while batch := list(islice(missing, _BATCH)):
            yield batch

    def _stays(self, row: Row, error: CdcError) -> Told:
        self.stays += 1
        reason = error.reason if isinstance(error, PoisonEvent) else str(error)
        return Told(f"stays: {plain(row.id)}: {plain(reason)}", stays=True)

    def _records(self, batch: list[Row], at: str) -> Iterator[tuple[Row, Record | CdcError]]:
        """The record of each row, or why there is none, in the order of the batch."""
        found = {row_id: (relation, data, age) for row_id, relation, data, age in self._fetched(batch)}
        for row in batch:
            if row.id not in found:
                yield row, CdcError("it is not in the table any more")
                continue
            try:
                yield row, self._record(row, *found[row.id], at)
            except Temporary:
                raise
            except CdcError as error:
                yield row, error

    def _fetched(self, batch: list[Row]) -> Iterator[tuple[str, Relation, TupleData, int | None]]:
        return self._audit.table.fetch([row.id for row in batch])

    def _record(self, row: Row, relation: Relation, data: TupleData, age: int | None, at: str) -> Record:
        committed = row.committed // 1000 or age or int(time.time() * 1000)
        inserted = Inserted(Ledger().begin(LSN(1), committed), 0, relation, data)
        event = self._outbox.event(inserted)
        record = self._workbench.made(event.type, partial(self._encoding.record, event))
        # Where in the stream it was is not known any more.
        headers = [header for header in record.headers if header[0] != POSITION]
        return record._replace(headers=[*headers, (REPAIRED, at)])

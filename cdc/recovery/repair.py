"""The source of `audit --repair`: missing events, made again from their rows and sent in the order of their commits."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final

from cdc.app.outbox import outbox_of
from cdc.audit.run import Auditing
from cdc.audit.verdicts import TableRow
from cdc.config.settings import Settings
from cdc.dead_letters.producer import Outgoing
from cdc.dead_letters.record_maker import RecordMaker
from cdc.dead_letters.resend import attempt
from cdc.errors import CdcError
from cdc.logs.format import plain
from cdc.lsn import LSN
from cdc.records.headers import POSITION, REPAIRED
from cdc.records.record import Record
from cdc.replication.messages import Relation, TupleData
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row

_BATCH: Final = 500


class MissingEvents:
    """The events that an audit found missing."""

    whole = False

    def __init__(self, settings: Settings, audit: Auditing, maker: RecordMaker) -> None:
        self._audit = audit
        self._maker = maker
        self._outbox = outbox_of(settings, audit.stream, audit.table.keys)
        self._encoding = maker.encoding(self._outbox)

    def batches(self) -> Iterator[list[TableRow]]:
        """Yield the rows of missing events."""
        missing = self._audit.books.missing()
        while batch := list(islice(missing, _BATCH)):
            yield batch

    def records(self, batch: list[TableRow], at: str) -> Iterator[tuple[TableRow, Record | CdcError]]:
        """Yield the record of each row, or why there is none."""
        fetched = self._audit.table.fetch([row.id for row in batch])
        found = {row_id: (relation, data, age) for row_id, relation, data, age in fetched}
        for row in batch:
            if row.id in found:
                yield row, attempt(partial(self._record, row, *found[row.id], at))
            else:
                yield row, CdcError("it is not in the table any more")

    def outgoing(self, row: TableRow, record: Record, at: str) -> Outgoing:  # noqa: ARG002 - a Source has them
        """Return the record alone: no marker is needed, as the next audit finds it."""
        return Outgoing(record)

    def refuse(self, row: TableRow, error: CdcError) -> None:
        """Leave an event that Kafka refuses."""

    def name(self, row: TableRow) -> str:
        """Return the id."""
        return plain(row.id)

    def _record(self, row: TableRow, relation: Relation, data: TupleData, age: int | None, at: str) -> Record:
        committed = row.committed // 1000 or age or int(time.time() * 1000)
        event = self._outbox.event(Row(Ledger().begin(LSN(1), committed), 0, relation, data))
        record = self._maker.make(event.type, partial(self._encoding.record, event))
        # The position in the stream is not known any more.
        headers = [header for header in record.headers if header[0] != POSITION]
        return record._replace(headers=[*headers, (REPAIRED, at)])


def look_again(audit: Auditing, dead_letter: str) -> int:
    """Read what has come since the audit, and what its range left out; return how many events are missing.

    No event is sent whose id a topic of events has, or the topic of dead letters, no matter which program sent it.
    """
    audit.topics.look({*audit.everywhere(), dead_letter} & audit.topics.existing())
    for _, records in audit.read():
        audit.books.found(record.id for record in records)
    audit.books.found(audit.books.dead())
    return audit.books.missing_count()

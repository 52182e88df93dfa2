"""Deliberate defects: each has a description, a row of docs/faults.md, and an exact replacement in one file.

The simulation has to find a defect: the worlds of the publisher, with `recovery` those of `recover`, in the rows
`fleet` and `polling` those of a fleet and of a relay. Where they cannot see one, because the defect is in a part that
no world drives, `unit` names the file of unit tests that has to.

Not in the list, because nothing that anybody can see changes with them:

* the fast path never takes rows again after its table was changed: records are the same, only later;
* the process drops its record of the slot where Kafka has none: a slot is claimed in Kafka before it is read;
* order is compared within chunks only: a chunk ends with a record of the chunk behind it;
* topics share one number in what was seen: no two events of a stream have the same position;
* topics are not read side by side, but one after the other (case D8): a start only takes longer.

No mutants of two cases whose rule is an SQL statement, which only tests on real servers can judge: the names of those
for whom `slot create` waits (case C9), and the timeline right after a promotion (case C11).
"""

from typing import Final, NamedTuple


class Defect(NamedTuple):
    """One mutant. `old` must be in the file exactly once."""

    name: str
    row: str
    sentence: str
    file: str
    old: str
    new: str
    unit: str = ""  # below tests/unit
    recovery: bool = False  # the worlds of recovery find it

    @property
    def world(self) -> str:
        """Return the kind of worlds that have to find it."""
        if self.row in ("fleet", "polling"):
            return self.row
        return "recovery" if self.recovery else "publisher"


_SETTLE: Final = """\
        while transactions and transactions[0].end_lsn is not None and not transactions[0].undelivered:
            transaction = transactions.popleft()
            self.confirmed = max(transaction.end_lsn or self.confirmed, self.confirmed)
"""
_KEEPALIVE_BEHIND: Final = """\
            last = self._transactions[-1]
            last.end_lsn = max(wal_end, last.end_lsn or wal_end)
"""
_LAST_STATUS: Final = """\
        self._source.write(session.confirmation.last_status(self._clock.monotonic(), self._clock.unix()))
"""

DEFECTS: Final = (
    Defect(
        "maximum", "A2", "The last settled transaction is confirmed, although older ones are not settled.",
        "replication/settlement.py",
        _SETTLE,
        """\
        for each in [each for each in transactions if each.end_lsn is not None and not each.undelivered]:
            transactions.remove(transaction := each)
            self.confirmed = max(each.end_lsn or self.confirmed, self.confirmed)
""",
    ),
    Defect(
        "commit-lsn", "A3", "The commit LSN is confirmed instead of the end LSN.", "replication/settlement.py",
        "max(transaction.end_lsn or self.confirmed, self.confirmed)",
        "max(transaction.commit_lsn, self.confirmed)",
    ),
    Defect(
        "plus-one", "A4", "One is added to the end LSN.", "replication/settlement.py",
        "self.open.end_lsn = end_lsn", "self.open.end_lsn = LSN(end_lsn + 1)",
    ),
    Defect(
        "on-receive", "A1", "A transaction is confirmed as soon as it was read.", "replication/settlement.py",
        " and not transactions[0].undelivered:", ":",
    ),
    Defect(
        "keepalive-in-flight", "A10", "A keepalive is confirmed while events are in flight.",
        "replication/settlement.py",
        _KEEPALIVE_BEHIND, "            self.confirmed = max(wal_end, self.confirmed)\n",
    ),
    Defect(
        "keepalive-inside", "A10", "A keepalive inside a transaction counts.", "replication/settlement.py",
        "        if self.open is not None:\n            return\n", "",
    ),
    Defect(
        "last-callback", "A2", "Each delivery report confirms its own transaction.", "replication/settlement.py",
        "            self.undelivered -= 1\n",
        "            self.undelivered -= 1\n"
        "            self._ledger.confirmed = max(self._ledger.confirmed, self.end_lsn or self._ledger.confirmed)\n",
    ),
    Defect(
        "first-callback", "A1", "The first delivery report of a transaction settles all of it.",
        "replication/settlement.py",
        "            self.undelivered -= 1\n", "            self.undelivered = 0\n",
    ),
    Defect(
        "failed-is-delivered", "C6", "A failed delivery counts as delivered.", "replication/settlement.py",
        "    return error is None and (", "    return error is not None or (",
    ),
    Defect(
        "no-offset", "C6", "A report without an offset counts as delivery.", "replication/settlement.py",
        " and (message is None or message.offset() is not None)\n", "\n",
    ),
    Defect(
        "index-goes-on", "A5", "The index is not reset where a transaction begins.", "replication/settlement.py",
        "        self._transactions.append(self.open)\n",
        "        self.open.events = self._transactions[-1].events if self._transactions else 0\n"
        "        self._transactions.append(self.open)\n",
    ),
    Defect(
        "row-lsn", "A5", "Rows whose own LSN is below the confirmed one are treated as old.", "delivery/session.py",
        "                taken = self._path",
        "                if int.from_bytes(frame[1:9], 'big') < self.ledger.confirmed:\n"
        "                    transaction.events += 1\n"
        "                    self._at += 1\n"
        "                    continue\n"
        "                taken = self._path",
    ),
    Defect(
        "pending-dropped", "D1", "An event that waited for its schema is lost.", "delivery/session.py",
        "            self.waits_for = pending.waits_for\n",
        "            self.waits_for = pending.waits_for\n"
        "            self.ledger.open.events += 1\n            self._at += 1\n",
    ),
    Defect(
        "unread-dropped", "D1", "Rows read after an event that waits are lost.", "delivery/session.py",
        "            self.waits_for = pending.waits_for\n",
        "            self.waits_for = pending.waits_for\n            self._frames = self._frames[: self._at + 1]\n",
    ),
    Defect(
        "poison-skipped", "C8", "A poison event is skipped.", "delivery/session.py",
        "            self.poison = poison\n",
        "            self.ledger.open.events += 1\n            self._at += 1\n            self.events += len(records)\n"
        "            return records + self.resume()\n",
    ),
    Defect(
        "dead-letter-early", "C8", "A dead letter counts as delivered before Kafka has it.", "records/path.py",
        "            self.dead_lettered += 1\n",
        "            self.dead_lettered += 1\n            row.transaction.undelivered -= 1\n"
        "            record = record._replace(on_delivery=lambda error, message: None)\n",
    ),
    Defect(
        "oversized", "C7", "The size of a record is not checked before it is sent.", "records/path.py",
        "        if at_most(record) > largest and", "        if at_most(record) < 0 and",
    ),
    Defect(
        "status-first", "B1", "The slot is moved before Kafka has the position.", "delivery/confirmation.py",
        "        return min(settled, self.positions.confirmed) if self.positions else settled\n",
        "        return settled\n",
    ),
    Defect(
        "last-status-all", "A16", "The last status update confirms every row that was read.",
        "delivery/confirmation.py",
        "        return self._status(now, unix_time, reply=False)\n",
        "        read = self.ledger._transactions[-1].end_lsn if self.ledger._transactions else None\n"
        "        return status_update(read or self.lsn, unix_time)\n",
    ),
    Defect(
        "told-is-delivered", "B1", "The record of the slot's position counts as delivered before Kafka has it.",
        "delivery/reports.py",
        "        record = replace(self.record, confirmed=confirmed, ",
        "        record = self.record = replace(self.record, confirmed=confirmed, ",
    ),
    Defect(
        "telling-fails", "B1", "A rejected record of the slot's position is ignored.", "delivery/reports.py",
        "                self._failed(Failure(error, message, confirmed))\n", "                pass\n",
    ),
    Defect(
        "slot-ahead", "A19", "A slot further ahead than the publisher moved it is accepted.", "delivery/positions.py",
        " and found.confirmed > remembered.confirmed:", " and not found.confirmed:",
    ),
    Defect(
        "name-only", "B6", "Rows of a renamed outbox table are treated as another table's.",
        "replication/transactions.py", " or relation.oid in self._oids:", ":",
    ),
    Defect(
        "changes-accepted", "B5", "Changes of slot and publication are always accepted.", "delivery/slot_memory.py",
        "        if not self._accepted.issuperset(changes):\n", "        if changes and not changes:\n",
    ),
    Defect(
        "defect-ignored", "B5", "Findings of the sentinel are ignored.", "delivery/monitor.py",
        "            raise observation.error\n", "            return\n",
    ),
    Defect(
        "shutdown-ignored", "B17", "A server's fast shutdown is delayed.", "delivery/monitor.py",
        "        if self._leave_at is not None and now >= self._leave_at:\n",
        "        if self._leave_at is not None and now < 0:\n",
    ),
    Defect(
        "own-position", "A18", "A session starts at the position in memory instead of the slot's.",
        "delivery/service.py",
        "            ledger = Ledger(ends.slot.confirmed, settled)\n",
        "            ledger = Ledger(max(ends.slot.confirmed, known.confirmed if known else 0))\n",
    ),
    Defect(
        "ledger-kept", "A15", "The ledger outlives its session.", "delivery/service.py",
        "            ledger = Ledger(ends.slot.confirmed, settled)\n",
        "            ledger = self.__dict__.setdefault('ledger', Ledger(ends.slot.confirmed))\n",
    ),
    Defect(
        "backlog-kept", "A15", "Unsent records of a session are sent in the next one.", "delivery/loop.py",
        "        self._backlog: list[Sendable] = []\n",
        "        self._backlog = clock.__dict__.setdefault('backlog', [])\n",
    ),
    Defect(
        "failure-ignored", "C6", "The session continues after a failed delivery.", "delivery/loop.py",
        "        if failure:\n", "        if failure and not failure:\n",
    ),
    Defect(
        "status-waits", "A12", "No status update is sent while Kafka accepts no records.", "delivery/loop.py",
        "        if status:\n            self._source.write(status)\n",
        "        if status and not self._backlog:\n            self._source.write(status)\n",
    ),
    Defect(
        "queue-full", "C9", "Records that do not fit in the producer's queue are dropped.", "delivery/loop.py",
        "            del self._backlog[:sent]\n",
        "            self._backlog.clear()\n",
    ),
    Defect(
        "overtaking", "I2", "The newest record is sent first.", "delivery/loop.py",
        "        sent = self._sink.send(self._backlog)\n",
        "        self._backlog.reverse()\n        sent = self._sink.send(self._backlog)\n",
    ),
    Defect(
        "run-uncounted", "A1", "The events of a run are not waited for.", "records/fastpath/path.py",
        "            transaction.add_events(len(run))\n", "            transaction.events += len(run)\n",
    ),
    Defect(
        "run-index", "A5", "Each run counts from 0.", "records/fastpath/path.py",
        "            prefix, index = self._prefix % following.commit_lsn, following.events\n",
        "            prefix, index = self._prefix % following.commit_lsn, 0\n",
    ),
    Defect(
        "run-swallows", "D1", "The row that ends a run is skipped.", "records/fastpath/path.py",
        "            at += len(run)\n", "            at += len(run) + 1\n",
    ),
    Defect(
        "run-again", "A14", "The last row of a run is sent twice.", "records/fastpath/path.py",
        "            at += len(run)\n", "            at += len(run) - (len(run) > 1)\n",
    ),
    Defect(
        "run-across-settled", "A5", "A run that continues in the next transaction does not end the previous one.",
        "replication/transactions.py",
        "        self._commit(commit_lsn, end_lsn)\n        return", "        self._ledger.open = None\n        return",
    ),
    Defect(
        "run-unasked", "A14", "Redelivered rows are sent again in runs.", "delivery/deduplication.py",
        " if sent.beyond(transaction.commit_lsn) else None\n", "\n",
    ),
    Defect(
        "run-beside", "A14", "Missing events of the last transaction in Kafka are counted as all of it.",
        "delivery/deduplication.py",
        "        return commit_lsn > self._highest\n", "        return commit_lsn >= self._highest\n",
    ),
    Defect(
        "layout-kept", "B7", "Rows of a changed table are read by its old definition.", "records/fastpath/path.py",
        "        if self._transactions.outbox.get(table.relation.oid) is not table.relation:\n",
        "        if table.relation.oid not in self._transactions.outbox:\n",
    ),
    Defect(
        "reads-on", "I10", "Reading continues while records wait for Kafka.", "delivery/loop.py",
        "        elif self._full():\n            self._liveness.heard()\n", "",
    ),
    Defect(
        "wall-clock", "C20", "Status updates follow the wall clock.", "delivery/loop.py",
        "confirmation.status(now, unix_time)", "confirmation.status(unix_time, unix_time)",
    ),
    Defect("no-last-status", "A16", "A clean stop sends no last status update.", "delivery/loop.py", _LAST_STATUS, ""),
    Defect(
        "drain-untold", "A16", "A clean stop does not wait until it may confirm delivered events.", "delivery/loop.py",
        " and self._settled() and self._session.confirmation.complete", " and self._settled()",
    ),
    Defect(
        "drain-undelivered", "D4", "A clean stop does not wait for Kafka.", "delivery/loop.py",
        "        return ledger.undelivered == 0 and ledger.open is None\n", "        return ledger.open is None\n",
    ),
    Defect(
        "deaf", "A14", "A silent server is waited for indefinitely.", "delivery/liveness.py",
        "        if self.silence > self._limit:\n", "        if self.silence < 0:\n",
    ),
    Defect(
        "other-tables", "A5", "Rows of other tables are counted in the index.", "replication/transactions.py",
        "        if message.relation_oid not in self._known:\n",
        "        transaction.events += 1\n        if message.relation_oid not in self._known:\n",
    ),
    Defect(
        "up-to-the-maximum", "C6", "Events below the last position of their topic are treated as sent.",
        "delivery/deduplication.py",
        "        found = tail.id_at(place, *at)\n", "        found = event_id\n",
    ),
    Defect(
        "any-id", "C17", "Any record with an event's position is treated as that event.", "delivery/deduplication.py",
        "        if found == event_id:\n", "        if found is not None:\n",
    ),
    Defect(
        "any-partition", "C13", "An event is treated as sent if it is in any partition.", "delivery/deduplication.py",
        "        place = None if key is None else partition(key, tail.partitions)\n", "        place = None\n",
    ),
    Defect(
        "not-read-back", "D5", "What Kafka has is sent again.", "delivery/slot_memory.py",
        "        return SentBefore(ends.wal_end, position or NOWHERE, ends.tails, dead_letters, *foreign",
        "        return SentBefore(), record\n        return SentBefore(*foreign",
    ),
    Defect(
        "read-back-too-short", "D5", "Only the first redelivered transactions are searched in Kafka.",
        "delivery/slot_memory.py",
        "        return SentBefore(ends.wal_end, position or NOWHERE, ends.tails, dead_letters, *foreign",
        "        end = LSN(ends.slot.confirmed + 1)\n"
        "        return SentBefore(end, position or NOWHERE, ends.tails, dead_letters, *foreign",
    ),
    Defect(
        "dead-letters-forgotten", "C8", "Dead letters are not searched in Kafka.", "delivery/deduplication.py",
        "        names = [topic] if self._dead_letters in (None, topic) else [topic, self._dead_letters]\n",
        "        names = [topic]\n",
    ),
    Defect(
        "skipped-undelivered", "A6", "Skipped events are never settled.", "delivery/deduplication.py",
        "        row.transaction.report(None, None)\n", "",
    ),
    Defect(
        "position-too-far", "C18", "The position in a Kafka transaction is one event too far.", "delivery/reports.py",
        "            self._position = position\n",
        "            self._position = position._replace(number=position.number + 1)\n",
    ),
    Defect(
        "position-inclusive", "C18", "The last event of a Kafka transaction is sent again.",
        "delivery/deduplication.py",
        "<= self._position\n", "< self._position\n",
    ),
    Defect(
        "position-unread", "C18", "What a Kafka transaction has made visible is sent again.", "delivery/slot_memory.py",
        "        position = reached(known, ends.slot.timeline, ends.timelines) if known else None\n",
        "        position = None\n",
    ),
    Defect(
        "position-in-memory", "C18", "A commit with an unknown outcome is treated as failed.",
        "delivery/slot_memory.py",
        "            self._record = memory.record or self._record\n",
        "            self._record = self._record or memory.record\n",
    ),
    Defect(
        "other-timeline", "B13", "Positions of another timeline are taken for this one's.", "delivery/positions.py",
        "    if record.position is None or record.timeline == timeline:\n", "    if True:\n",
    ),
    Defect(
        "guarantee-early", "C18", "Events sent at least once are forgotten when transactions begin.",
        "delivery/reports.py",
        "        self._caught_up = record.caught_up\n", "        self._caught_up = batch is not None\n",
    ),
    Defect(
        "not-handed-over", "B16", "Open transactions continue after the guarantee has changed.",
        "delivery/slot_memory.py",
        "            ends.hand_over(record)\n", "            pass\n",
    ),
    Defect(
        "batch-open", "C18", "A Kafka transaction does not end after transaction_ms.", "delivery/reports.py",
        " or now - self._since >= seconds\n", "\n",
    ),
    Defect(
        "numbers-anew", "I4", "Numbers restart in each session.", "delivery/sequence.py",
        " = tail.sequence(place)\n", " = 0\n",
    ),
    Defect(
        "numbers-by-topic", "I4", "Numbers are counted over all partitions of a topic.", "delivery/sequence.py",
        "        self._last[record.topic, place] = last + 1\n",
        "        self._last[record.topic, place] = last + 1\n"
        "        for other in self._last:\n"
        "            self._last[other] += other[0] == record.topic and other[1] != place\n",
    ),
    Defect(
        "timeout", "C5", "The producer gives up on records after two seconds.", "config/librdkafka.py",
        '    "message.timeout.ms": (0, ', '    "message.timeout.ms": (2000, ',
    ),
    Defect(
        "gapless-off", "C6", "Later records may overtake a rejected one.", "config/librdkafka.py",
        '    "enable.gapless.guarantee": (True, ', '    "enable.gapless.guarantee": (False, ',
    ),
    Defect(
        "idempotence-off", "C2", "The producer's retries duplicate and reorder.", "config/librdkafka.py",
        '    "enable.idempotence": (True, ', '    "enable.idempotence": (False, ',
    ),
    Defect(
        "acks-1", "C15", "The leader's acknowledgement is enough.", "config/librdkafka.py",
        '    "acks": ("all", ', '    "acks": ("1", ',
    ),
    Defect(
        "layout-outlives", "case A1", "Rows of a table that was changed are read by its previous layout.",
        "records/fastpath/path.py",
        "        if self._transactions.outbox.get(table.relation.oid) is not table.relation:\n", "        if False:\n",
    ),
    Defect(
        "plan-outlives", "case A1", "The general path reads rows of a table that was changed by its previous plan.",
        "outbox/events.py",
        "        if shape is None or shape.relation is not relation:\n",
        "        if shape is None:\n",
    ),
    Defect(
        "routes-mixed", "case A1", "The route of an event type is taken in every topic.",
        "records/router.py",
        "        key = event.type, event.topic, event.payload_kind\n",
        '        key = event.type, "", event.payload_kind\n',
        "records/test_router.py",
    ),
    Defect(
        "binary-again", "case A2", "The catalog decides about the format after a value that only text can be read of.",
        "delivery/service.py",
        "text=self._confirmed < self._text_until)", "text=False)",
    ),
    Defect(
        "header-needed", "case A5", "The column of a header is expected in rows from before it.", "outbox/columns.py",
        " for header in wanted if header.column in self.places]", " for header in wanted]",
    ),
    Defect(
        "names-only", "case A1", "A column that changed its type is not noticed.", "replication/transactions.py",
        "            if relation != self.outbox.get(relation.oid):\n",
        "            names = [column.name for column in relation.columns]\n"
        "            if names != [column.name for column in getattr(self.outbox.get(relation.oid), 'columns', ())]:\n",
    ),
    Defect(
        "types-only", "case A1", "Columns that changed their names are not noticed.", "replication/transactions.py",
        "            if relation != self.outbox.get(relation.oid):\n",
        "            types = [column.type_oid for column in relation.columns]\n"
        "            before = getattr(self.outbox.get(relation.oid), 'columns', ())\n"
        "            if types != [column.type_oid for column in before]:\n",
    ),
    Defect(
        "first-not-alone", "C6", "More records are sent to a partition before its first one is delivered.",
        "kafka/first_records.py",
        "        return None if done is False else Target(", "        return Target(",
    ),
    Defect(
        "firsts-never-forget", "C6", "Partitions stay proven, although brokers forget producers.",
        "kafka/first_records.py",
        "        if now >= self._forget_at:\n", "        if now < 0:\n",
    ),
    Defect(
        "firsts-forget-half", "C6", "Topics stay proven, although brokers forget producers.", "kafka/first_records.py",
        "            self.proven.clear()\n", "",
    ),
    Defect(
        "proven-when-sent", "C6", "A partition counts as proven when its first record is sent.",
        "kafka/first_records.py",
        " and all(delivered.values()):\n", ":\n",
    ),
    Defect(
        "proven-by-one", "C6", "One proven partition proves its topic.", "kafka/first_records.py",
        "        if len(delivered) >= (self._partitions(topic) or 1) and", "        if len(delivered) >= 1 and",
    ),
    Defect(
        "first-of-topic", "C6", "Only the first record of a topic is sent alone.", "kafka/first_records.py",
        "            number = partition(record.key or b\"\", partitions)\n", "            number = 0\n",
    ),
    Defect(
        "seen-last-id", "C17", "The last id of a position counts.", "kafka/readback/seen.py",
        "  set differs = differs or id <> excluded.id, place", "  set differs = 1, id = excluded.id, place",
        "kafka/test_seen.py",
    ),
    Defect(
        "seen-anywhere", "C13", "A position is found in any partition.", "kafka/readback/seen.py",
        '_HERE: Final = f"{_ANYWHERE} and partition = ?"', '_HERE: Final = f"{_ANYWHERE} and ? >= 0"',
        "kafka/test_seen.py",
    ),
    Defect(
        "seen-remembers", "D5", "Positions are stored after they were dropped.", "kafka/readback/seen.py",
        "        with self._lock:\n            self._close()\n", "        pass\n",
        "kafka/test_seen.py",
    ),
    Defect(
        "seen-any-topic", "D5", "Positions of one topic are found in another.", "kafka/readback/seen.py",
        'select id from seen where topic = ? and', 'select id from seen where topic >= ? and',
        "kafka/test_seen.py",
    ),
    Defect(
        "seen-full", "D9", "A disk that is full is not reported.", "kafka/readback/seen.py",
        "            self._close()\n            raise\n", "            self._close()\n",
        "kafka/test_seen.py",
    ),
    Defect(
        "repeats-forgotten", "case D1", "Later events of a key do not follow one that is sent again.",
        "delivery/deduplication.py",
        "                tail.repeat(key)\n", "                pass\n",
    ),
    Defect(
        "overtaken-counts", "case D1", "An event counts although an older one of its key comes behind it.",
        "delivery/deduplication.py",
        "            return not ordered or place is None or key is None or not tail.overtaken(place, key, *at)\n",
        "            return True\n",
    ),
    Defect(
        "margin-of-nothing", "C20", "Records of times before the first redelivered event are not read.",
        "kafka/readback/backwards.py",
        "max(0, since - MARGIN_MS)", "max(0, since)",
    ),
    Defect(
        "last-chunk-only", "D5", "Only the last chunk of each partition is read back.", "kafka/readback/partition.py",
        "        return bool(floors) and self.next(min(floors))\n",
        "        return self.start == self.high and bool(floors) and self.next(min(floors))\n",
    ),
    Defect(
        "window-of-one", "D5", "Reading back ends at the first own record that may be redelivered.",
        "kafka/readback/partition.py",
        "self._oldest < self._confirmed:", "self._oldest >= self._confirmed:",
    ),
    Defect(
        "confirmed-unread", "D5", "Events of the first redelivered transaction are not kept.",
        "kafka/readback/partition.py",
        "        return order[0] >= self._confirmed or by_hand or self._newest[0] >= self._confirmed\n",
        "        return order[0] > self._confirmed or by_hand\n",
    ),
    Defect(
        "disorder-unseen", "case D1", "Records that come behind later ones are not noticed.",
        "kafka/readback/partition.py",
        "            self.disordered = True\n", "            pass\n",
    ),
    Defect(
        "number-of-first", "I4", "The first number of a chunk counts instead of the last.",
        "kafka/readback/partition.py",
        "                self.sequence = max(self.sequence, int(text))\n",
        "                self.sequence = self.sequence or int(text)\n",
    ),
    Defect(
        "no-end", "D5", "Records of other partitions are taken for this one's.", "kafka/readback/backwards.py",
        "            part = parts.get((topic, number))  # else of one that was read before\n",
        "            part = parts.get((topic, number % 1))\n",
    ),
    Defect(
        "oldest-chunk", "D5", "The chunk at the floor is not read.", "kafka/readback/chunks.py",
        "        if self.start <= floor:\n", "        if self.start - self._size <= floor:\n",
    ),
    Defect(
        "hole-at-the-end", "D5", "A chunk waits for the record at the end of its partition.",
        "kafka/readback/chunks.py",
        "        else:\n            self.over = True\n",
        "        else:\n            self.over = self._first is not None\n",
    ),
    Defect(
        "highest-of-none", "D5", "What a topic holds is never asked for.", "kafka/readback/tail.py",
        "                    tail.highest = max(tail.highest, LSN(sighting.commit_lsn))\n",
        "                    tail.highest = tail.highest\n",
    ),
    Defect(
        "text-never", "case A2", "Binary values of an unknown type are requested again.", "delivery/service.py",
        "                    self._text_until = LSN(ledger.open.commit_lsn + 1)\n", "                    pass\n",
    ),
    Defect(
        "domains-by-oid", "case A3", "A domain is not read as its base type.", "replication/transactions.py",
        "types.get(each.type_oid, each.type_oid)", "each.type_oid",
    ),
    Defect(
        "cast-of-boolean", "case A4", "A boolean of a cast is not read as one of the stream.", "replication/values.py",
        'return "true" if cell[:1] == b"t" else "false"', 'return "true" if cell == b"t" else "false"',
        "outbox/test_outbox.py",
    ),
    Defect(
        "children-unknown", "case B1", "Rows of a table that inherits from the outbox are another table's.",
        "replication/transactions.py",
        "        self._oids = children if oid is None else children | {oid}\n",
        "        self._oids = frozenset() if oid is None else frozenset({oid})\n",
    ),
    Defect(
        "children-unnoticed", "case B1", "A table that begins to inherit from the outbox is not noticed.",
        "replication/publication.py",
        "    if _changed(now, before, CHILDREN, CHILD_OIDS):\n", "    if False:\n",
    ),
    Defect(
        "accepted-once", "B5", "What was accepted is refused by the next session.", "delivery/slot_memory.py",
        "        if not self._accepted.issuperset(changes):\n",
        "        if changes and not self._accept_changes:\n",
    ),
    Defect(
        "bytes-unnamed", "case C7", "Text that is no UTF-8 does not name its column.", "outbox/events.py",
        "            reason = plan.culprit(values) if isinstance(error, UnicodeDecodeError) else str(error)\n",
        "            reason = str(error)\n",
        "outbox/test_outbox.py",
    ),
    Defect(
        "commits-wait", "case C8", "Commits that wait for the publisher are not confirmed at once.",
        "delivery/confirmation.py",
        "        self._prompt_seconds = 0.0\n", "        self._prompt_seconds *= 1\n",
        "delivery/test_confirmation.py",
    ),
    Defect(
        "padding-kept", "case C10", "The padding of char(n) is part of a value.", "replication/values.py",
        'cell.rstrip(b" ").decode()', "cell.decode()",
        "outbox/test_outbox.py",
    ),
    Defect(
        "refusal-of-nobody", "case D3", "A record that Kafka refused stops the publisher again.", "kafka/rejections.py",
        "            self.rows[position] = str(problem)\n", "            pass\n",
        "kafka/test_known_topics.py",
    ),
    Defect(
        "common-topic-of-rows", "case D3", "Errors of a topic that all events share are taken for a row's.",
        "kafka/rejections.py",
        "        return self._chosen_by_rows and topic not in self._own\n", "        return topic not in self._own\n",
        "kafka/test_known_topics.py",
    ),
    Defect(
        "topics-uncompared", "case D4", "Topics that were deleted and created again are not noticed.",
        "delivery/slot_memory.py",
        "            changes += self._topics(", "            self._topics(",
    ),
    Defect(
        "cluster-uncompared", "case D4", "Another cluster is not noticed.", "delivery/positions.py",
        "    if found.cluster and remembered.cluster and found.cluster != remembered.cluster:\n", "    if False:\n",
        "delivery/test_service.py",
    ),
    Defect(
        "never-claimed", "case D7", "A slot is read for the first time before it is recorded.",
        "delivery/slot_memory.py",
        "    return None if known.record is not None else replace(", "    return None if True else replace(",
    ),
    Defect(
        "unknown-is-nothing", "case D9", "A timeline of unknown end has no events in Kafka.",
        "delivery/slot_memory.py",
        "    if record and exactly_once and record.position and reached(", "    if False and reached(",
        "delivery/test_service.py",
    ),
    Defect(
        "refusal-untold", "C6", "A record that is refused in a transaction is not reported.",
        "kafka/transactional_producer.py",
        "        on_delivery(error, message)\n", "        pass\n",
        "kafka/test_transactional_producer.py",
    ),
    Defect(
        "purged-told", "C6", "Records that are purged with a refused one are reported in its place.",
        "kafka/transactional_producer.py",
        " and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):\n", ":\n",
        "kafka/test_transactional_producer.py",
    ),
    Defect(
        "commit-unproven", "C18", "Records count as delivered although their commit has failed.",
        "kafka/transactional_producer.py",
        "        if error is not None:\n            raise self._topics.transaction_failed(error, \"committing",
        "        if error is not None and error.fatal():\n"
        "            raise self._topics.transaction_failed(error, \"committing",
        "kafka/test_transactional_producer.py",
    ),
    Defect(
        "commit-once", "C18", "A commit is not repeated.", "kafka/transactional.py",
        "        return retriable and not abandoned\n", "        return False\n",
    ),
    Defect(
        "behind-the-position", "C18", "Records follow the position in its transaction.", "kafka/transactional.py",
        "        return not self._ending\n", "        return True\n",
    ),
    Defect(
        "position-goes-on", "C18", "A transaction does not end with the position.", "kafka/transactional.py",
        "        self._ending = topic == self._positions\n", "        self._ending = topic != topic\n",
    ),
    Defect(
        "commit-without", "C18", "A transaction is committed without the position.", "kafka/transactional.py",
        "        if self._ending:  # and", "        if self.is_open:  # and",
    ),
    Defect(
        "transaction-failed", "C18", "A transaction that has failed is waited for.", "kafka/transactional.py",
        "        if self.failed:\n", "        if False:\n",
    ),
    Defect(
        "first-of-transaction", "C6", "First records count as delivered before they are flushed.",
        "kafka/transactional.py",
        "        if queued:\n", "        if queued < 0:\n",
    ),
    Defect(
        "reports-again", "C18", "Reports of a transaction are repeated with the next one.", "kafka/transactional.py",
        "        reports, self.reports = self.reports, []\n", "        reports = list(self.reports)\n",
    ),
    Defect(
        "left-open", "C18", "An open transaction is left to the coordinator.", "kafka/transactional.py",
        "        return self.is_open and not self.committing\n", "        return False\n",
        "kafka/test_transactional_producer.py",
    ),
    Defect(
        "children-position", "case B1", "Positions are trusted although rows are counted otherwise since.",
        "delivery/slot_memory.py",
        "        if known and counts_otherwise(", "        if False and counts_otherwise(",
    ),
    Defect(
        "virtual-is-stored", "case A6", "Virtual generated columns are reported as stored ones.", "postgres/defects.py",
        "{'stored' if stored else 'virtual'}", "{'stored'}",
        "postgres/test_defects.py",
    ),
    Defect(
        "moves-allowed", "case B2", "The fix lets updates move rows to other partitions.", "postgres/defects.py",
        "(ROW({old}) IS DISTINCT", "(ROW({old}) IS NOT DISTINCT",
        "postgres/test_defects.py",
    ),
    Defect(
        "policies-hide", "case B3", "Rows that a policy hides are overlooked.", "postgres/session.py",
        '    "row_security": "off",', '    "row_security": "on",',
        "postgres/test_pinned.py",
    ),
    Defect(
        "gone-is-phantom", "case B4", "Records of a partition that was dropped are phantoms.", "audit/judging.py",
        "                    deleted = bool(gone)\n", "                    deleted = False\n",
        "audit/test_audit.py",
    ),
    Defect(
        "encoding-of-dsn", "case C1", "The encoding of the connection string counts.", "postgres/connection.py",
        '{**_DEFAULTS, **given, "client_encoding": "UTF8", **parameters}',
        '{**_DEFAULTS, "client_encoding": "UTF8", **given, **parameters}',
        "postgres/test_pinned.py",
    ),
    Defect(
        "dates-of-role", "case C2", "Dates have the format of the role or database.", "postgres/session.py",
        '    "DateStyle": "ISO",\n', "",
        "postgres/test_pinned.py",
    ),
    Defect(
        "bytea-of-role", "case C2", "Bytes have the format of the role or database.", "postgres/session.py",
        '    "bytea_output": "hex",\n', "",
        "postgres/test_pinned.py",
    ),
    Defect(
        "no-limits", "case C3", "Statements wait for locks without a limit.", "postgres/session.py",
        "    settings |= {name: f", "    _ = {name: f",
        "postgres/test_pinned.py",
    ),
    Defect(
        "lock-is-fatal", "case C3", "A lock that is not released in time ends the program.", "postgres/connection.py",
        '    if sqlstate == "55P03":\n', '    if sqlstate == "":\n',
        "postgres/test_postgres_errors.py",
    ),
    Defect(
        "any-host", "case C4", "Of several hosts any that may write is taken.", "postgres/connection.py",
        '        found["target_session_attrs"] = "primary"\n', '        found["target_session_attrs"] = "read-write"\n',
        "postgres/test_pinned.py",
    ),
    Defect(
        "replication-of-dsn", "case C5", "The connection string decides about replication mode.",
        "postgres/connection.py",
        '    given.pop("replication", None)', '    given.get("replication", None)',
        "postgres/test_pinned.py",
    ),
    Defect(
        "two-phase-fits", "case C6", "A slot that sends prepared transactions is read.", "postgres/slot_health.py",
        "    if health.two_phase:\n", "    if health.two_phase and version < 0:\n",
        "postgres/test_postgres_errors.py",
    ),
    Defect(
        "others-are-own", "case D2", "Schemas of other teams stop the publisher.", "registry/source.py",
        "                if origin not in self._own and (", "                if origin is None and (",
        "registry/test_registry_source.py",
    ),
    Defect(
        "own-passed-over", "case D2", "An unusable schema of the publisher's own is passed over.", "registry/source.py",
        "            if subject == schema[\"name\"] or self._is_own(subject, schema[\"name\"]):\n",
        "            if subject == schema[\"name\"]:\n",
        "registry/test_registry_source.py",
    ),
    Defect(
        "long-flush", "case D5", "A flush goes on after a fatal error.", "kafka/client.py",
        "producer.flush(min(_FLUSH_SECONDS, ", "producer.flush(max(_FLUSH_SECONDS, ",
        "kafka/test_failure.py",
    ),
    Defect(
        "limits-unseen", "case D6", "The oldest row is not compared with its topic's limits.", "checks/topics.py",
        "        elif abs(age) > limit:\n", "        elif abs(age) > _UNLIMITED:\n",
        "checks/test_check.py",
    ),
    Defect(
        "future-unseen", "case D6", "Only the limit for old timestamps is compared.", "checks/topics.py",
        "        setting = _BEFORE if age > 0 else _AFTER\n", "        setting = _BEFORE\n",
        "checks/test_check.py",
    ),
    Defect(
        "foreign-code", "case D10", "Properties that load libraries are accepted.", "config/librdkafka.py",
        "        if name in properties and name not in allowed_code\n",
        "        if name in properties and name in allowed_code\n",
        "config/test_properties.py",
    ),
    Defect(
        "snapshot-late", "B1", "The snapshot is taken after the slot: what both bring is sent twice.",
        "recovery/run.py",
        "self._snapshot(start.snapshot) as horizon:", "self._snapshot() as horizon:",
        recovery=True,
    ),
    Defect(
        "held-first", "B1", "The slot is held, which ends its snapshot, before the snapshot is imported.",
        "recovery/run.py",
        "                    start = new.create(slot, failover=self.found.failover, seconds=self._options.wait)\n",
        "                    start = new.create(slot, failover=self.found.failover, seconds=self._options.wait)\n"
        "                    new.hold(slot, settings.postgres.publication)\n",
        recovery=True,
    ),
    Defect(
        "above-the-point", "B1", "Recovered events have a position that the new slot's stream may have, too.",
        "recovery/run.py",
        "self._send(LSN(start.lsn - 1))", "self._send(LSN(start.lsn))",
        recovery=True,
    ),
    Defect(
        "horizon-included", "B1", "The transaction at the horizon counts as below it.", "replication/horizon.py",
        "& 4294967295) >= ({next} - {horizon})", "& 4294967295) >= ({next} - 1 - {horizon})",
        recovery=True,
    ),
    Defect(
        "horizon-of-now", "B1", "A horizon ignores the transactions in progress.", "postgres/horizons.py",
        "select pg_snapshot_xmin(pg_current_snapshot())", "select pg_snapshot_xmax(pg_current_snapshot())",
        recovery=True,
    ),
    Defect(
        "horizon-early", "B1", "A horizon counts before the slot has confirmed it.", "replication/horizon.py",
        "[known for known in self._known if known.lsn <= lsn]", "list(self._known)",
        recovery=True,
    ),
    Defect(
        "any-timeline", "B1", "Horizons of what a server never had count.", "replication/horizon.py",
        "return tuple(one for one in known if one.timeline in limits and one.lsn <= limits[one.timeline])",
        "return tuple(known) if limits else ()",
        recovery=True,
    ),
    Defect(
        "xid-of-32-bits", "B1", "Ids of transactions are compared in 32 bits.", "replication/horizon.py",
        '"(({next} - 1 - {xmin}) & 4294967295) >= ({next} - {horizon})"', '"{xmin} < ({horizon} & 4294967295)"',
        recovery=True,
    ),
    Defect(
        "round-below-xmin", "B1", "A round sends only what is below the xmin of its snapshot.", "recovery/bound.py",
        'conditions.append(sql.SQL("not ({})").format(sql.SQL(_BELOW).format(row=row)))',
        'conditions.append(sql.SQL("not ({}) and t.xmin::text::int8 < ((select pg_snapshot_xmin(pg_current_snapshot())'
        '::text::int8) & 4294967295)").format(sql.SQL(_BELOW).format(row=row)))',
        recovery=True,
    ),
    Defect(
        "round-bound-late", "B1", "The bound behind a round is a horizon that is taken after it.", "recovery/run.py",
        "                before = missing\n",
        "                before = missing\n"
        "                with self._snapshot() as horizon:\n                    pass\n",
        recovery=True,
    ),
    Defect(
        "round-positions", "B1", "Rounds do not begin with a WAL record: their positions do not ascend.",
        "recovery/run.py",
        "        return LSN.parse(lsn)\n",
        "        return self.found.mark.confirmed\n",
        recovery=True,
    ),
    Defect(
        "portion-positions", "B1", "Each portion of a round counts its events from 0.", "recovery/events.py",
        "            self.index += len(batch)\n", "",
        recovery=True,
    ),
    Defect(
        "rounds-forgotten", "B1", "What earlier rounds sent does not count as held.", "recovery/candidates.py",
        "total = self._topics.look(names, since)", "total = self._topics.look([] if self._read else names, since)",
        recovery=True,
    ),
    Defect(
        "held-again", "B1", "Rows that topics hold are sent.", "recovery/candidates.py",
        "        yield from verdict.missing\n",
        "        yield from group.rows\n",
        recovery=True,
    ),
    Defect(
        "record-early", "B1", "The recovery's record is deleted before the slot's is written.", "recovery/run.py",
        "        positions.write(settings, found.key, mark.encode())\n"
        "        positions.write(settings, recovery_key(found.key), None)\n",
        "        positions.write(settings, recovery_key(found.key), None)\n"
        "        positions.write(settings, found.key, mark.encode())\n",
        recovery=True,
    ),
    Defect(
        "record-never", "B1", "A recovery has no record: who finds its slot streams.", "recovery/run.py",
        "        positions.write(self._settings, recovery_key(self.found.key), self._record.encode())\n", "",
        recovery=True,
    ),
    Defect(
        "leftover-slot", "B1", "The slot that a killed recovery left is used, without its snapshot.",
        "recovery/run.py",
        "        while any(one.name == slot for one in slots.find(self._guard)):\n",
        "        while any(one.name == slot and one.wal_status == 'lost' for one in slots.find(self._guard)):\n",
        recovery=True,
    ),
    Defect(
        "updates-unseen", "B1", "Commit timestamps order rows that were updated.", "recovery/order.py",
        "    if timed and not (facts.updated and number):\n", "    if timed:\n",
        recovery=True,
    ),
    Defect(
        "counters-restart", "B1", "Counters of updates that restarted are compared with those of before.",
        "recovery/bound.py",
        "        if self.counted in (None, since):\n", "        if self.counted in (None, since) or since:\n",
        unit="recovery/test_bound.py",
    ),
    Defect(
        "order-by-place", "B1", "Rows are ordered by their place in the table.", "recovery/order.py",
        '        return sql.SQL(", ").join(self.expressions)\n',
        '        return sql.SQL(", ").join(self.expressions[-1:])\n',
        recovery=True,
    ),
    Defect(
        "messages-uncounted", "messages", "Messages do not count in the index of their transaction.",
        "replication/transactions.py",
        "return Row(transaction, transaction.events, MESSAGE,", "return Row(transaction, 0, MESSAGE,",
    ),
    Defect(
        "messages-lost", "messages", "Messages within transactions are passed over.", "delivery/session.py",
        '_EVENTS: Final = (b"I", b"M")', '_EVENTS: Final = (b"I",)',
    ),
    Defect(
        "prefix-begins", "messages", "A message of a longer prefix is an event.", "replication/prefixes.py",
        "        if message.prefix == self.wanted:\n",
        "        if message.prefix.startswith(self.wanted or message.prefix):\n",
        "delivery/test_session_messages.py",
    ),
    Defect(
        "payload-rewritten", "messages", "The payload of a message is parsed and written again.", "outbox/messages.py",
        "            return text[start:end].encode()\n",
        "            return json.dumps(json.loads(text[start:end])).encode()\n",
        "outbox/test_messages.py",
    ),
    Defect(
        "message-unparsed", "messages", "A message of which nothing has parsed the payload is published in a run.",
        "records/fastpath/generated.py",
        "_json_text if self._of_messages and route.encode is text_value else route.encode\n", "route.encode\n",
        "records/test_runs_messages.py",
    ),
    Defect(
        "message-of-others", "messages", "Messages of other prefixes are published in a run.",
        "records/fastpath/generated.py",
        " or marked != {layout.prefix + bytes(1)!r}", "", "records/test_runs_messages.py",
    ),
    Defect(
        "message-time", "messages", "The time of a message is read as that of another message was written.",
        "records/fastpath/generated.py",
        "            yield f\"if c{place} is not None and {is_other}c{place}.lstrip(b'-').isdigit(): break\"\n",
        "            yield f\"{is_other and 'pass'}\"\n", "records/test_runs_messages.py",
    ),
    Defect(
        "alone-published", "messages", "A message that is not transactional is published.", "outbox/events.py",
        "            if alone:\n", "            if False:\n", "delivery/test_session_messages.py",
    ),
    Defect(
        "alone-again", "messages", "The slot does not pass a message that came outside of a transaction.",
        "replication/transactions.py",
        "LSN(transaction.commit_lsn + 2)", "LSN(transaction.commit_lsn + 1)", "delivery/test_session_messages.py",
    ),
    Defect(
        "alone-bounded", "messages", "The dead letter of a message alone is searched by the time it was sent again.",
        "replication/settlement.py",
        "    since = 0\n", "    pass\n", "delivery/test_session_messages.py",
    ),
    Defect(
        "skips-all", "messages", "With --skip every poison event becomes a dead letter.", "records/dead_letters.py",
        "return self._only is None or poison.position in self._only", "return True",
        "delivery/test_session_messages.py",
    ),
    Defect(
        "message-unmeasured", "messages", "A message is parsed whatever its length.", "records/path.py",
        "        if size > self.topics.most:\n", "        if size < 0:\n", "delivery/test_session_messages.py",
    ),
    Defect(
        "renumbered-by-position", "messages", "Rows that have other numbers than before are not known by id.",
        "delivery/deduplication.py",
        "        if self._by_id:\n", "        if False:\n", "delivery/test_session_messages.py",
    ),
    Defect(
        "renumbered-once", "messages", "The next session does not know that rows have other numbers than before.",
        "delivery/positions.py",
        "                LSN.parse(renumbered) if renumbered else None,\n", "                None,\n",
        "delivery/test_positions.py",
    ),
    Defect(
        "fleet-lost-as-revoked", "fleet", "What is lost is treated as revoked.", "fleet/placement.py",
        "        self.lost |= gone\n", "        self.doubtful |= gone\n",
    ),
    Defect(
        "fleet-topic-as-revoked", "fleet", "What the group revokes when its topic is deleted is drained.",
        "fleet/placement.py",
        "        if not same:\n            self.lost |= self.doubtful\n", "",
    ),
    Defect(
        "fleet-lost-for-ever", "fleet", "An assignment does not end what was lost.", "fleet/placement.py",
        "        self.lost.clear()\n", "        self.lost -= self.assigned\n",
    ),
    Defect(
        "fleet-revoked-kept", "fleet", "What is revoked goes on.", "fleet/placement.py",
        "        self.doubtful.clear()\n", "",
    ),
    Defect(
        "fleet-callback-waits", "fleet", "A partition is given back when its unit has drained.", "fleet/membership.py",
        "        consumer.incremental_unassign(partitions)\n        if not self._leaving:\n"
        "            self._placement.revoke(_numbers(partitions))\n",
        "        if not self._leaving:\n            self._placement.revoke(_numbers(partitions))\n"
        "            while self._placement.held & {*_numbers(partitions)}:\n"
        "                threading.Event().wait(0.01)\n"
        "        consumer.incremental_unassign(partitions)\n        if not self._leaving:\n",
        "fleet/test_membership.py",
    ),
    Defect(
        "fleet-not-read", "fleet", "An entry is written by an instance that has not read the register to its end.",
        "fleet/register.py",
        "        if not self.complete:\n            return Plan({}, 0)\n", "",
    ),
    Defect(
        "fleet-alphabet", "fleet", "Units are numbered by the alphabet.", "fleet/instance.py",
        "        return {unit for unit, partition in self.register.partitions.items() if partition in held}\n",
        "        return {unit for at, unit in enumerate(sorted(self.register.partitions), 1) if at in held}\n",
    ),
    Defect(
        "fleet-first-entry", "fleet", "The first entry of a unit counts.", "fleet/register.py",
        "                self._entries[name] = partition\n",
        "                self._entries.setdefault(name, partition)\n",
        "fleet/test_register.py",
    ),
    Defect(
        "fleet-half-read", "fleet", "Entries count before the register was read to its end.", "fleet/register.py",
        " if self.complete else self._before", "", "fleet/test_register.py",
    ),
    Defect(
        "fleet-no-tombstone", "fleet", "A unit cannot be forgotten.", "fleet/register.py",
        "                self._entries.pop(name, None)\n", "                pass\n",
    ),
    Defect(
        "fleet-anew-empty", "fleet", "A topic that is made anew begins without the entries of the old one.",
        "fleet/register.py",
        "        self._before = self.partitions\n", "        self._before = {}\n",
    ),
    Defect(
        "fleet-not-anew", "fleet", "The entries of a topic that is gone are not written to the new one.",
        "fleet/register.py",
        "        lacking = {name: known[name] for name in self._before if name not in self._entries}\n",
        "        lacking: dict[str, int] = {}\n",
        "fleet/test_register.py",
    ),
    Defect(
        "fleet-one-partition", "fleet", "A new unit takes a partition that another has.", "fleet/register.py",
        "                taken.add(lacking[name])\n", "", "fleet/test_register.py",
    ),
    Defect(
        "fleet-two-children", "fleet", "A unit that comes back is started while its child drains.",
        "fleet/supervision.py",
        "            if unit not in self.lives and (pauses",
        "            if (unit not in self.lives or self.lives[unit].draining_since) and (pauses",
    ),
    Defect(
        "fleet-holds-on", "fleet", "An instance that does not reach Kafka keeps its slots.", "fleet/supervision.py",
        "            and now - life.blocked_since >= self._session_seconds\n",
        "            and now - life.blocked_since >= 1000 * self._session_seconds\n",
    ),
    Defect(
        "fleet-starts-again", "fleet", "A unit that was left to others starts again at once.", "fleet/placement.py",
        "        self.lost -= {*partitions}\n", "        pass\n", "fleet/test_instance.py",
    ),
    Defect(
        "fleet-no-pause", "fleet", "A child that fails is started again without a pause.", "fleet/supervision.py",
        "        pauses.until = now + pause\n", "        pass\n", "fleet/test_supervision.py",
    ),
    Defect(
        "fleet-never-killed", "fleet", "A child that does not drain is waited for.", "fleet/supervision.py",
        "            if late >= 2 * KILL_SECONDS:\n", "            if late >= 2000 * KILL_SECONDS:\n",
        "fleet/test_supervision.py",
    ),
    Defect(
        "fleet-ready-anyway", "fleet", "An instance that fails at what worked elsewhere is ready.",
        "fleet/readiness.py",
        "            self._blamed[unit] = why\n", "            pass\n", "fleet/test_readiness.py",
    ),
    Defect(
        "fleet-unready-anyway", "fleet", "An instance with a unit that needs a person is not ready.",
        "fleet/readiness.py",
        "        if last is not None and last.works and last.instance != self._instance:\n", "        if True:\n",
        "fleet/test_readiness.py",
    ),
    Defect(
        "fleet-blame-forgotten", "fleet", "A broken instance says that a unit fails, so that the next one is ready.",
        "fleet/readiness.py",
        "        if unit in self._worked:\n            return None if", "        if True:\n            return None if",
        "fleet/test_readiness.py",
    ),
    Defect(
        "fleet-one-slot", "fleet", "Two units of one slot run.", "fleet/units.py",
        "for name in names if len(names) > 1 else ():", "for name in names if len(names) > 2 else ():",
        "fleet/test_units.py",
    ),
    Defect(
        "fleet-credentials", "fleet", "A unit with a Kafka of its own gets the credentials of the fleet's.",
        "config/loading.py",
        "                if isinstance(own, dict) and any(own.get(name) for name in names):\n"
        "                    continue\n",
        "", "fleet/test_units.py",
    ),
    Defect(
        "batch-forgets-running", "polling", "Transactions that were running at the snapshot before are forgotten.",
        "polling/batches.py",
        '    if ended:\n',
        '    if False:\n',
    ),
    Defect(
        "batch-lower-exclusive", "polling", "The first transaction after a snapshot is left out.",
        "polling/batches.py",
        '        began = f"{row}.cdc_tx >= \'{earlier.xmax}\'',
        '        began = f"{row}.cdc_tx >= \'{earlier.xmax + 1}\'',
    ),
    Defect(
        "batch-sees-running", "polling", "Rows count whose transactions were running at the snapshot.",
        "polling/batches.py",
        '        if later.running and later.running[-1] >= earlier.xmax:\n',
        '        if False:\n',
    ),
    Defect(
        "batch-all-running", "polling", "Of the transactions that were running, those that still are count too.",
        "polling/batches.py",
        'if later.sees(xid)]',
        'if xid]',
    ),
    Defect(
        "beyond-forgets", "polling", "Transactions that were running at the last snapshot are no reason for another.",
        "polling/batches.py",
        '    if earlier.running:\n        conditions',
        '    if False:\n        conditions', "polling/test_batches.py",
    ),
    Defect(
        "confirm-too-far", "polling", "The part behind the one that Kafka has confirmed is stored as confirmed.",
        "polling/progress.py",
        'self._parts[0].number < lsn',
        'self._parts[0].number <= lsn',
    ),
    Defect(
        "until-without-partly", "polling", "It is stored up to which number rows were sent, and not of which snapshot.",
        "polling/progress.py",
        'Progress(self.before.seen, self.seen, self.numbers[count - 1]',
        'Progress(self.before.seen, None, self.numbers[count - 1]',
    ),
    Defect(
        "one-row-less", "polling", "The event at the position counts as not sent.",
        "polling/progress.py",
        'min(position.number + 1, len',
        'min(position.number, len',
    ),
    Defect(
        "part-ends-early", "polling", "The first part of a batch counts as all of it.",
        "polling/reader.py",
        'tick.xid, rows.numbers, not rows.more)',
        'tick.xid, rows.numbers, True)',
    ),
    Defect(
        "rest-from-the-start", "polling", "A batch that was sent in part is sent from its beginning.",
        "polling/reader.py",
        'after = self._progress.until if',
        'after = None if',
    ),
    Defect(
        "deletes-partly", "polling", "Rows are deleted that only a partly confirmed snapshot sees.",
        "polling/reader.py",
        "        self._seen = progress.seen\n", "        self._seen = progress.partly or progress.seen\n",
    ),
    Defect(
        "deletes-read", "polling", "Rows are deleted when they were read.",
        "polling/reader.py",
        '            self._progress = part.done\n            batch',
        '            self._progress = part.done\n            self._seen = part.done.seen\n            batch',
    ),
    Defect(
        "clears-locked", "polling", "What somebody has locked counts as deleted.",
        "polling/reader.py",
        '        if self._table.clear(self._cleared, self._seen):\n',
        '        if self._table.clear(self._cleared, self._seen) or True:\n',
    ),
    Defect(
        "reads-back-less", "polling", "Records of rows that were recognised are not found again by the next session.",
        "polling/reader.py",
        '        if confirmed >= self._numbers.fresh:\n',
        '        if True:\n',
    ),
    Defect(
        "recognises-too-short", "polling", "Rows are new as soon as the first part was read.",
        "polling/reader.py",
        '            if part.tick == self._first:\n',
        '            if True:\n',
    ),
    Defect(
        "epoch-of-the-table", "polling", "A new epoch is above that of the table only, which may have been set back.",
        "polling/numbers.py",
        '    epoch = max(known) + 1\n',
        '    epoch = known[0] + 1\n',
    ),
    Defect(
        "tick-unproven", "polling", "Kafka's record counts although the table was set back behind it.",
        "delivery/slot_memory.py",
        ' and has_tick(progress.tick, progress.xid) else None',
        ' else None',
    ),
    Defect(
        "resumes-unread", "polling", "Nothing behind Kafka's record is compared.",
        "delivery/slot_memory.py",
        'caught_up = caught_up and ends.resumes',
        'caught_up = ends.resumes',
    ),
    Defect(
        "progress-of-before", "polling", "The record in Kafka has the progress of what the table has confirmed.",
        "delivery/reports.py",
        'progress=self._progress(self._position))',
        'progress=self._progress(None))',
    ),
    Defect(
        "runs-past-ids", "polling", "Runs of rows are not compared by their ids.",
        "delivery/deduplication.py",
        '            return not any(left for left, _ in self._left.values())\n',
        '            return True\n',
    ),
    Defect(
        "id-met-twice", "polling", "A row that waits is counted each time that it is looked for.",
        "delivery/deduplication.py",
        '        if event_id and event_id != last:',
        '        if event_id:', "delivery/test_deduplication.py",
    ),
    Defect(
        "id-out-of-order", "polling", "A record counts that stands before that of an older row of its key.",
        "delivery/deduplication.py",
        '        if offset <= self._last.get((topic, key), -1):\n',
        '        if False:\n', "delivery/test_deduplication.py",
    ),
    Defect(
        "id-after-a-gap", "polling", "A record counts although an older event of its key is sent again behind it.",
        "delivery/deduplication.py",
        '            if self._anywhere and key is not None:\n',
        '            if False:\n', "delivery/test_deduplication.py",
    ),
    Defect(
        "lease-without-lock", "polling", "A relay with a still heartbeat is free, although its holder has the lock.",
        "polling/schedule.py",
        '        if found.locked:\n',
        '        if False:\n', "polling/test_schedule.py",
    ),
    Defect(
        "lease-of-before", "polling", "A heartbeat does not begin the lease again.",
        "polling/schedule.py",
        '        if seen != self._seen:\n',
        '        if self._seen is None:\n', "polling/test_schedule.py",
    ),
    Defect(
        "looks-only-when-free", "polling", "No snapshot is taken while earlier rows are read.",
        "polling/reader.py",
        '        if due <= now:\n            self._look',
        '        if due <= now and not behind:\n            self._look', "polling/test_reader.py",
    ),
    Defect(
        "looks-instead-of-reading", "polling", "Nothing is read at the time of a look.",
        "polling/reader.py",
        '        if room and self._batch:\n',
        '        if room and self._batch and due > now:\n', "polling/test_reader.py",
    ),
    Defect(
        "numbers-uncounted", "polling", "A look ahead is due after a second only.",
        "polling/schedule.py",
        ' or number >= self._number + AHEAD_NUMBERS',
        '', "polling/test_schedule.py",
    ),
    Defect(
        "split-looks-for-the-new", "split", "The publisher of a renamed table takes the new one of its name.",
        "postgres/renamed.py", "(one.published, one.name == new)", "(one.name == table, one.published)",
        "postgres/test_split.py",
    ),
    Defect(
        "split-forgets-publication", "split", "A table of the new name is the outbox before it is renamed.",
        "postgres/renamed.py", "(one.published, one.name == new)", "(one.name == new, one.published)",
        "postgres/test_split.py",
    ),
    Defect(
        "split-any-rename", "split", "Another table of another name passes for the renamed one.",
        "replication/publication.py",
        "table_oid(now) is not None and now[TABLE_OID] == before.get(TABLE_OID):", "table_oid(now) is not None:",
        "postgres/test_split.py",
    ),
    Defect(
        "split-by-name", "split", "Rows of the new table are rows of the publisher of the old one.",
        "delivery/service.py", "settings.outbox.new_name or settings.outbox.qualified_name",
        "settings.outbox.qualified_name", "delivery/test_service.py",
    ),
    Defect(
        "split-column-list", "split", "The trigger that keeps rows in their parts has a column list.",
        "postgres/defects.py", "{STAYS} BEFORE UPDATE ON", "{STAYS} BEFORE UPDATE OF id ON",
        "postgres/test_split.py",
    ),
    Defect(
        "split-column-list-passes", "split", "A trigger with a column list passes the check.",
        "postgres/moves.py", "        if trigger.columns:\n", "        if trigger.columns is None:\n",
        "postgres/test_split.py",
    ),
    Defect(
        "split-origin-only", "split", "A trigger that a subscription does not fire passes the check.",
        "postgres/moves.py", """trigger.enabled != "A":""", """trigger.enabled == "D":""",
        "postgres/test_split.py",
    ),
    Defect(
        "split-one-part", "split", "A trigger on one part passes the check for all.",
        "postgres/moves.py", "        trigger = own.get(table)\n", "        trigger = next(iter(own.values()), None)\n",
        "postgres/test_split.py",
    ),
    Defect(
        "split-runs-first", "split", "A trigger that runs behind the one that keeps rows passes the check.",
        "postgres/moves.py", "(trigger.name or \"\") > defects.STAYS", "(trigger.name or \"\") > \"zzzz\"",
        "postgres/test_split.py",
    ),
    Defect(
        "split-inserts", "split", "Rows that are inserted into the old table are not refused.",
        "postgres/split.py", "{trigger} BEFORE INSERT ON", "{trigger} BEFORE UPDATE ON",
        "postgres/test_split.py",
    ),
    Defect(
        "split-slot-first", "split", "Slots are created before their publications.", "cli/split.py",
        """\
        _block(steps.create) if steps.create else "The new table is there, with its publications.",
        _creates(invocation, steps, folder) if steps.without_slot else "Its slots are there.",
""",
        """\
        _creates(invocation, steps, folder) if steps.without_slot else "Its slots are there.",
        _block(steps.create) if steps.create else "The new table is there, with its publications.",
""",
        "postgres/test_split.py",
    ),
    Defect(
        "split-one-slot", "split", "All parts have one slot.", "postgres/split.py",
        """{"slot": slot_of(name), "publication": name}""", """{"publication": name}""", "postgres/test_split.py",
    ),
    Defect(
        "split-messages", "split", "An outbox with messages is split.", "postgres/split.py",
        "    if settings.outbox.messages is not None:\n", "    if settings.outbox.messages is None and number < 0:\n",
        "postgres/test_split.py",
    ),
    Defect(
        "fleet-orphan", "fleet", "A child outlives its instance.", "fleet/child.py",
        "        self._drain()  # the instance is gone\n", "", "fleet/test_child.py",
    ),
    Defect(
        "fleet-exit-code", "fleet", "A child is taken for ended by its exit code.", "fleet/children.py",
        "        units = {one.pipe: unit for unit, one in self._children.items()}\n",
        "        for unit, one in list(self._children.items()):\n"
        "            if one.process.exitcode is not None:\n"
        "                self._bury(unit)\n"
        '                yield unit, Ended(one.process.exitcode, "")\n'
        "        units = {one.pipe: unit for unit, one in self._children.items()}\n",
        "fleet/test_child.py",
    ),
)  # fmt: skip

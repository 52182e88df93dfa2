"""`audit` on real servers: what was done to topics is found and nothing else, and what is missing comes back."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc.audit.books import Books
from cdc.audit.in_flight import Copy
from cdc.audit.range import Range
from cdc.audit.run import Asked, Auditing
from cdc.audit.table import OutboxTable
from cdc.audit.topics import TopicReader
from cdc.audit.verdicts import FINDINGS
from cdc.config.loading import load
from cdc.dead_letters.resend import Resend
from cdc.errors import KafkaUnavailable, PostgresUnavailable
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.postgres.connection import connect
from cdc.records.headers import stream_id
from cdc.recovery.repair import MissingEvents, look_again
from tests.load import Load
from tests.pipeline import Pipeline, eventually
from tests.producing import in_order
from tests.reader import Received, read_all
from tests.servers import PrivatePostgres

NOTHING = dict.fromkeys(FINDINGS, 0)


class Auditor:
    """A pipeline, hands to spoil its topics, and the command that has to notice."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._producer = in_order(pipeline.kafka)

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.pipeline.run("audit", *options)

    def json(self, *options: str, code: int) -> dict[str, Any]:
        self._flush()
        done = self.run("--json", *options)
        assert done.returncode == code, (done.stdout, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def finds(self, *options: str, **expected: list[str]) -> dict[str, Any]:
        """Audit; the ids of all findings must be these."""
        found = self.json(*options, code=1 if expected else 0)
        ids: dict[str, list[str]] = {}
        for one in found["findings"]:
            ids.setdefault(one["finding"], []).append(one["id"])
        assert {kind: sorted(those) for kind, those in ids.items()} == {k: sorted(v) for k, v in expected.items()}
        assert {kind: found["counts"][kind] for kind in FINDINGS} == NOTHING | {k: len(v) for k, v in expected.items()}
        return found

    def _flush(self) -> None:
        assert self._producer.flush(30) == 0

    def append(self, record: Received, producer: Producer | None = None, **headers: str) -> None:
        """A copy of a record at the end of its partition, with some headers changed."""
        changed = [(name, headers.get(name.replace("-", "_"), value)) for name, value in record.headers]
        (producer or self._producer).produce(
            record.topic,
            record.raw,
            record.key.encode(),
            record.partition,
            timestamp=record.timestamp[1],
            headers=changed,  # type: ignore[arg-type]
        )

    def produce(self, topic: str, value: bytes, key: bytes, **more: Any) -> None:
        """A record as another program sends it."""
        self._producer.produce(topic, value, key, **more)

    def remove(self, records: list[Received]) -> None:
        """Remove records, and all before them in their partitions."""
        last = {(one.topic, one.partition): one.offset for one in sorted(records, key=lambda one: one.offset)}
        admin = AdminClient({"bootstrap.servers": self.pipeline.kafka})
        asked = [TopicPartition(*place, offset + 1) for place, offset in last.items()]
        for future in admin.delete_records(asked).values():
            future.result()

    def raises_nothing(self) -> None:
        """Audit while the publisher runs: there must be no finding, and an account of every row."""
        with self.auditing() as auditing:
            list(auditing.run())
            counts = auditing.counts
            assert {kind: counts[kind] for kind in FINDINGS} == NOTHING, list(auditing.books.findings(FINDINGS, 5))
            assert counts["rows"] == counts["delivered"] + counts["in_flight"]

    @contextmanager
    def auditing(self) -> Iterator[Auditing]:
        """An audit within this process."""
        settings = load(self.pipeline.configure(), ())
        with (
            connect(settings.postgres.dsn) as connection,
            closing(Auditing(settings, Asked(wanted=Range()), connection)) as auditing,
        ):
            yield auditing


@pytest.fixture
def auditor(pipeline: Pipeline) -> Auditor:
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    return Auditor(pipeline)


def test_what_was_done_to_the_topics_is_found_exactly_and_what_is_missing_comes_back(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    running = pipeline.start().streams()
    for seq in range(0, 40, 4):
        for key in ("a", "b", "c", "d"):
            pipeline.insert(*range(seq, seq + 4), key=key)
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'a', 'Noted', '{\"no\": 1}')"
    )
    pipeline.settles()
    found = auditor.finds()
    assert (found["counts"]["rows"], found["counts"]["delivered"], found["counts"]["dead_lettered"]) == (161, 160, 1)
    assert running.stop() == 0
    pipeline.insert(100, 101, key="a")  # in flight

    records = pipeline.records()
    places = {record.partition: [r for r in records if r.partition == record.partition] for record in records}
    first, second = sorted(places, key=lambda number: len(places[number]))[-2:]
    lost = places[first][:3]
    auditor.remove(lost)
    swapped = places[second]
    key = swapped[0].key
    one, other = [place for place, record in enumerate(swapped) if record.key == key][:2]
    auditor.remove(swapped)
    reordered = list(swapped)
    reordered[one], reordered[other] = reordered[other], reordered[one]
    for record in reordered:
        auditor.append(record)
    doubled = places[first][5:7]
    for record in doubled:
        auditor.append(record)
    auditor.append(places[first][8], id="11111111-1111-1111-1111-111111111111")
    auditor.append(places[first][9], cdc_position=f"0badcafe{places[first][9].position[8:]}")  # of somebody else

    spoilt: dict[str, list[str]] = {
        "missing": [record.id for record in lost],
        "duplicate": [record.id for record in doubled],
        "out_of_order": [swapped[one].id],
        "phantom": ["11111111-1111-1111-1111-111111111111"],
    }
    found = auditor.finds(**spoilt)
    counts = found["counts"]
    assert (counts["in_flight"], counts["dead_lettered"], counts["foreign"], counts["purged"]) == (2, 1, 1, 0)
    assert [note["why"] for note in found["not_judged"] if "0badcafe (1)" in note["why"]]
    copied = next(one for one in found["findings"] if one["finding"] == "duplicate")
    original = next(record for record in doubled if record.id == copied["id"])
    assert copied["meaning"] == f"the same event as in {original.topic}, partition {first}, offset {original.offset}"
    assert (copied["key"], copied["position"]) == (original.key, original.position)

    told = auditor.run("--limit", "1")
    assert told.returncode == 1
    assert "6 more; --limit shows more of them\n" in told.stdout
    assert told.stdout.endswith("7 findings\n")
    assert told.stderr == ""

    dry = auditor.run("--repair", "--dry-run")
    assert dry.returncode == 1
    assert dry.stdout.count("would send ") == 3
    assert len(pipeline.records()) == len(records) - 3 + 4

    repaired = pipeline.run_process("audit", "--repair", "--yes")  # as a program
    assert repaired.stdout.endswith("repaired 3 events\n"), repaired.stderr
    back = [record for record in pipeline.records() if "cdc-repaired" in dict(record.headers)]
    assert [record.id for record in sorted(back, key=lambda record: record.offset)] == [record.id for record in lost]
    assert [dict(record.headers).keys() for record in back] == [{"id", "eventType", "cdc-repaired"}] * 3
    assert {(r.id, r.key, r.raw, r.partition) for r in back} == {(r.id, r.key, r.raw, r.partition) for r in lost}
    del spoilt["missing"]
    auditor.finds(**spoilt)
    again = auditor.run("--repair")
    assert again.stdout.endswith("nothing to repair\n")

    pipeline.start().streams()
    pipeline.settles()
    found = auditor.finds(**spoilt)
    assert (found["counts"]["in_flight"], found["counts"]["delivered"]) == (0, 162)


def slow_transaction(pipeline: Pipeline) -> Any:
    """Commit a row behind a hundred that are younger; returns a time between it and them."""
    with pipeline.connect() as connection, connection.transaction():
        connection.execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload)"
            " values ('note', 'slow', 'Noted', '{\"seq\": 1}')"
        )
        ((cut,),) = pipeline.sql("select clock_timestamp()")
        younger = "select 1 from outbox where created_at > %s offset 100 limit 1"
        eventually(lambda: bool(connection.execute(younger, [cut]).fetchall()), "younger rows")
    return cut


def test_an_audit_under_load_raises_no_false_alarm(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    pipeline.start().streams()
    with Load(pipeline.dsn, writers=4):
        eventually(lambda: bool(pipeline.sql("select 1 from outbox offset 300 limit 1")), "rows")
        for purges in (
            None,
            None,
            "created_at < %s",
            "created_at < %s",
            "created_at < %s and ctid < '(3,0)'",  # a purge by blocks that has not come to its end
            "id::text > '8'",  # in any order
        ):
            if purges:
                cut = slow_transaction(pipeline)
                pipeline.sql(f"delete from outbox where {purges}", *[cut] * purges.count("%s"))
            auditor.raises_nothing()
    pipeline.settles()
    found = auditor.finds()
    assert found["counts"]["in_flight"] == 0


def test_a_row_that_does_not_fit_its_contract_stays_missing_with_the_reason(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    pipeline.insert(1)
    pipeline.sql("insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Odd', '{}')")
    assert pipeline.run("slot", "advance", "--yes").returncode == 0  # passes both, unpublished
    done = auditor.run("--repair", "--yes")
    assert done.returncode == 1
    assert done.stdout.endswith("repaired 1 event; 1 not repaired\n")
    assert "no contract for event type 'Odd'" in done.stderr
    (record,) = pipeline.records()
    assert record.value["seq"] == 1
    assert auditor.json(code=1)["counts"]["missing"] == 1


def test_a_repair_looks_again_before_it_sends(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    pipeline.insert(1, 2, 3)
    assert pipeline.run("slot", "advance", "--yes").returncode == 0
    settings = load(pipeline.configure(), ())
    with auditor.auditing() as first:
        list(first.run())
        assert first.counts["missing"] == 3
        assert auditor.run("--repair", "--yes").stdout.endswith("repaired 3 events\n")
        with closing(Resend(settings, partial(MissingEvents, settings, first), dry_run=False, name="repair")) as resend:
            resend.begin()
            assert look_again(first, settings.topics.dead_letter) == 0
            assert list(resend.run()) == []
    assert [record.value["seq"] for record in pipeline.records()] == [1, 2, 3]  # as they were committed
    auditor.finds()


def test_only_committed_records_count_and_an_open_transaction_is_waited_for(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    pipeline.start().streams()
    pipeline.insert(1, 2)
    pipeline.settles()
    record = pipeline.records()[0]
    producer = Producer({"bootstrap.servers": pipeline.kafka, "transactional.id": f"{pipeline.prefix}audit"})
    producer.init_transactions(30)
    producer.begin_transaction()
    auditor.append(record, producer)
    producer.flush(30)
    settings = load(pipeline.configure(), ())
    with closing(TopicReader(settings, seconds=1)) as topics:
        assert topics.look([pipeline.topic]) == 3
        with pytest.raises(KafkaUnavailable, match="could not be read beyond offset 2 of 3: no records for 1 s"):
            list(topics.read())
        producer.abort_transaction(30)
        assert sum(map(len, topics.read())) == 0  # what came before is known
    auditor.finds()
    producer.begin_transaction()
    auditor.append(record, producer)
    producer.commit_transaction(30)
    auditor.finds(duplicate=[record.id])


def test_events_whose_rows_are_gone_are_judged_by_their_positions(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    pipeline.start().streams()
    pipeline.insert(*range(5))
    with pipeline.connect() as connection, connection.transaction():
        connection.execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload)"
            " select 'note', 'k', 'Noted', jsonb_build_object('seq', s) from generate_series(5, 9) s"
        )
        connection.execute("delete from outbox where (payload->>'seq')::int >= 5")
    pipeline.insert(10)
    pipeline.settles()
    found = auditor.finds("--sparse")
    assert (found["counts"]["purged"], found["counts"]["delivered"]) == (5, 6)
    pipeline.sql("delete from outbox")
    found = auditor.finds()
    assert (found["counts"]["purged"], found["counts"]["rows"]) == (11, 0)
    assert found["not_judged"] == [
        {
            "what": "records",
            "count": 11,
            "why": "their rows are not in the table any more: judged by their positions only",
        }
    ]
    last = pipeline.records()[-1]
    beyond = f"{last.position[:-8]}00000003"
    auditor.append(last, id="22222222-2222-2222-2222-222222222222", cdc_position=beyond)
    (hole,) = auditor.json(code=1)["findings"]
    assert (hole["finding"], hole["count"], hole["position"]) == ("hole", 2, f"{last.position[:-8]}00000001")
    auditor.append(last)
    assert auditor.json("--topic", pipeline.topic, code=1)["counts"]["duplicate"] == 1


def test_a_slot_that_cannot_be_copied_is_waited_for_and_what_stays_unknown_is_said(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(copy: Copy, outbox: Outbox) -> Iterator[str]:
        yield from complete(copy, outbox)
        raise PostgresUnavailable("the connection ended")

    complete = Copy.ids
    monkeypatch.setattr(Copy, "ids", refuse)
    pipeline = auditor.pipeline
    running = pipeline.start().streams()
    pipeline.insert(1, 2, 3)
    with auditor.auditing() as auditing:
        list(auditing.run())
        assert (auditing.counts["delivered"], auditing.counts["in_flight"]) == (3, 0)
        assert "the audit waited until the slot had confirmed all rows of the table" in auditing.notes[0].why
    assert running.stop() == 0
    pipeline.insert(4)
    with auditor.auditing() as auditing:
        list(auditing.run())
        assert (auditing.counts["missing"], auditing.counts["in_flight"]) == (0, 1)
        assert "the connection ended" in auditing.notes[0].why
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    found = auditor.json(code=1)  # nothing will come from a slot that is not there
    assert (found["counts"]["missing"], found["counts"]["in_flight"]) == (1, 0)
    assert f"replication slot '{pipeline.slot}' does not exist" in found["not_judged"][0]["why"]


def test_a_copy_of_the_slot_has_all_that_is_visible_though_it_is_not_flushed(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    settings = load(pipeline.configure(), ())
    with pipeline.connect() as connection, pipeline.connect() as other, other.transaction():
        connection.execute("set synchronous_commit = off")
        other.execute("create table unflushed ()")  # WAL that nobody flushes for long
        for seq in range(20):
            connection.execute(
                "insert into outbox (aggregatetype, aggregateid, type, payload)"
                " values ('note', 'k', 'Noted', jsonb_build_object('seq', %s::int))",
                [seq],
            )
            with closing(Copy(settings)) as copy:
                outbox = Outbox("x", settings.outbox.parts, TopicTemplate(settings.topics.name))
                assert len(list(copy.ids(outbox))) == seq + 1
    ((left,),) = pipeline.sql("select count(*) from pg_replication_slots where slot_name like 'cdc_audit%'")
    assert left == 0


def test_ranges_choose_by_time_position_and_id_and_ids_may_be_numbers(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    pipeline.sql("alter table outbox drop column id, add column id bigint primary key")
    pipeline.sql("alter table outbox alter column aggregateid type char(8)")
    pipeline.start().streams()
    with pipeline.connect() as connection:
        for number in range(1, 13):
            connection.execute(
                "insert into outbox (id, aggregatetype, aggregateid, type, payload)"
                " values (%s, 'note', 'k', 'Noted', jsonb_build_object('seq', %s::int))",
                [number, number],
            )
    pipeline.settles()
    records = pipeline.records()
    assert records[0].key == "k"
    auditor.remove(records[:10])
    assert auditor.json(code=1)["counts"]["missing"] == 10
    auditor.finds("--from-id", "9", "--to-id", "11", missing=["9", "10"])
    auditor.finds("--id", "11", "--id", "3", missing=["3"])
    auditor.finds("--id", "11")
    auditor.finds("--since", "2020-01-01", "--until", "2020-01-02")
    assert auditor.json("--since", "1h", code=1)["counts"]["rows"] == 12
    end = str(pipeline.wal_end())
    auditor.finds("--from-lsn", end)
    assert auditor.json("--from-lsn", "0/0", "--to-lsn", end, code=0)["counts"]["missing"] == 0  # at the edge
    auditor.finds("--to-lsn", end, missing=[str(number) for number in range(1, 11)])


def test_after_a_failover_records_of_the_earlier_timeline_are_still_ours(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = auditor.pipeline
    pipeline.start().streams()
    pipeline.insert(1, 2, 3)
    pipeline.settles()
    ((system_identifier,),) = pipeline.sql("select system_identifier::text from pg_control_system()")
    monkeypatch.setattr(Copy, "identify", lambda _: (system_identifier, 2))
    assert auditor.finds()["counts"]["delivered"] == 3
    first, *_ = pipeline.records()
    auditor.append(first, cdc_position=f"{stream_id(system_identifier, 2, pipeline.slot)}{first.position[8:]}")
    auditor.append(first, id="33333333-3333-3333-3333-333333333333", cdc_position=f"{first.position[:-1]}9")
    found = auditor.finds(duplicate=[first.id], phantom=["33333333-3333-3333-3333-333333333333"])
    assert "of an earlier timeline" in found["findings"][1]["meaning"]


def test_rows_are_in_the_order_of_commits_where_the_server_remembers_their_times(
    private_postgres: PrivatePostgres, bare_pipeline: Pipeline
) -> None:
    bare_pipeline.settings["postgres"]["dsn"] = private_postgres(settings={"track_commit_timestamp": "on"}).dsn
    bare_pipeline.dsn = bare_pipeline.settings["postgres"]["dsn"]
    bare_pipeline.sql(
        "create table outbox (id int, aggregatetype text, aggregateid text, type text, payload jsonb)"
        " partition by range (id)"
    )
    bare_pipeline.sql("create table low partition of outbox for values from (0) to (10)")
    bare_pipeline.sql("create table high partition of outbox for values from (10) to (20)")
    insert = "insert into outbox values (%s, 'note', 'k', 'Noted', '{}')"
    with bare_pipeline.connect() as first, bare_pipeline.connect() as second:
        with first.transaction():
            first.execute(insert, [2])
            with second.transaction():
                second.execute(insert, [11])
                second.execute(insert, [12])
            with first.transaction():
                first.execute(insert, [13])  # in a subtransaction
        second.execute(insert, [1])
        table = OutboxTable(second, load(bare_pipeline.configure(), ()), None)
        assert table.knows_commit_times
        with table.snapshot(), closing(Books()) as books:
            books.add_missing(table.rows(Range(), frozenset()))
            assert [row.id for row in books.missing()] == ["11", "12", "2", "13", "1"]
        fetched = {row_id: data.cells for row_id, _, data, _ in table.fetch(["2", "11"])}
        assert fetched.keys() == {"2", "11"}
        assert not table.deleted()
        second.execute("delete from outbox where id = 11")
        second.execute("select pg_stat_force_next_flush()")
        eventually(table.deleted, "the count of deleted rows")


def by_another_program(auditor: Auditor, row_id: str, key: str, timestamp: int = 0) -> None:
    """What Debezium, or any other program, sends for a row: the header `id` is all that it shares with ours."""
    auditor.produce(auditor.pipeline.topic, b"{}", key.encode(), timestamp=timestamp, headers=[("id", row_id.encode())])


def take_over(auditor: Auditor) -> tuple[str, dict[str, str]]:
    """Commit A, which began first, behind B; advance the slot between them, and publish the rest. Returns that LSN."""
    pipeline = auditor.pipeline
    insert = (
        "insert into outbox (aggregatetype, aggregateid, type, payload)"
        " values ('note', %s, 'Noted', '{\"seq\": 1}') returning id::text"
    )
    ids = {}
    with pipeline.connect() as connection:
        with connection.transaction():
            ((ids["A"],),) = connection.execute(insert, ["a"]).fetchall()
            ((ids["B"],),) = pipeline.sql(insert, "b")
            theirs = str(pipeline.wal_end())
            assert pipeline.run("slot", "advance", "--to", theirs, "--yes").returncode == 0
        for name in ("C", "D"):
            ((ids[name],),) = connection.execute(insert, [name.lower()]).fetchall()
    pipeline.start().streams()
    pipeline.settles()
    assert {record.id for record in pipeline.records()} == {ids[name] for name in "ACD"}
    return theirs, ids


def test_case_g1_an_event_that_another_program_sent_is_there_by_its_id_and_is_not_repaired(auditor: Auditor) -> None:
    theirs, ids = take_over(auditor)
    by_another_program(auditor, ids["B"], "b", timestamp=1_000_000)  # also where its time is before all ranges
    by_another_program(auditor, ids["C"], "c")
    for options in ((), ("--from-lsn", theirs), ("--to-lsn", theirs), ("--id", ids["B"])):
        found = auditor.finds(*options)
        assert (found["counts"]["missing"], found["counts"]["undecided"]) == (0, 0), options
    counts = auditor.finds()["counts"]
    assert (counts["delivered"], counts["foreign"]) == (4, 2)
    for options in ((), ("--from-lsn", theirs), ("--since", "1h"), ("--topic", auditor.pipeline.topic)):
        auditor.run("--repair", "--yes", *options)
    records = read_all(auditor.pipeline.kafka, auditor.pipeline.prefix, bytes)
    assert not [record for record in records if "cdc-repaired" in dict(record.headers)]


def test_case_g1_what_the_edge_of_a_range_cannot_decide_is_undecided_and_is_not_repaired(auditor: Auditor) -> None:
    theirs, ids = take_over(auditor)
    found = auditor.finds("--from-lsn", theirs)
    assert found["counts"]["undecided"] == 1
    assert [note["count"] for note in found["not_judged"] if note["why"].startswith("undecided: ")] == [1]
    done = auditor.run("--from-lsn", theirs, "--repair", "--yes")
    assert (done.returncode, done.stdout.endswith("nothing to repair\n")) == (0, True)
    assert auditor.finds("--to-lsn", theirs)["counts"]["undecided"] == 1
    auditor.finds(missing=[ids["B"]])  # without a range there is no edge


def test_case_g1_after_a_slot_was_made_anew_events_and_dead_letters_of_the_old_one_count(auditor: Auditor) -> None:
    pipeline = auditor.pipeline
    running = pipeline.start().streams()
    pipeline.insert(1, 2)
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'a', 'Noted', '{\"no\": 1}')"
    )
    pipeline.settles()
    assert running.stop() == 0
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    pipeline.settings["postgres"]["slot"] = f"{pipeline.slot}_again"
    assert pipeline.run("slot", "create").returncode == 0
    pipeline.start().streams()
    pipeline.insert(3)
    pipeline.settles()
    counts = auditor.finds()["counts"]
    assert (counts["rows"], counts["delivered"], counts["dead_lettered"]) == (4, 3, 1)
    assert auditor.run("--repair", "--yes").stdout.endswith("nothing to repair\n")
    assert len(pipeline.records()) == 3


def test_what_cannot_be_audited_is_refused_with_the_reason(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, code, message in (
        (("--age", "nowhere"), 1, "has no column nowhere"),
        (("--age", "payload"), 1, "column 'payload' is jsonb, not a time"),
        (("--yes",), 2, "--dry-run and --yes need --repair"),
        (("--from-lsn", "7"), 2, "'7' is not an LSN"),
    ):
        done = auditor.run(*options)
        assert (done.returncode, message in done.stderr, done.stdout) == (code, True, ""), done.stderr
    monkeypatch.setattr("cdc.cli.audit._REACH_SECONDS", 0.5)
    auditor.pipeline.settings["kafka"]["bootstrap.servers"] = "127.0.0.1:1"
    done = auditor.run()
    assert (done.returncode, done.stdout) == (75, "")
    assert "Kafka cannot be reached" in done.stderr

"""With `on_poison = "dead-letter"` nothing is lost: poison events stay in their topic until they are replayed once."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.load import Load
from tests.pipeline import Pipeline, eventually
from tests.reader import Received, read_all

pytestmark = pytest.mark.timeout(300)

NOTICED = {
    "type": "record",
    "name": "Noticed",
    "namespace": "tests",
    "fields": [{"name": "seq", "type": "long"}],
}


class Careless(Load):
    """Writers that write one row in fifty without a contract, or with a field unknown to its contract."""

    def _transaction(
        self, connection: "psycopg.Connection[tuple[object, ...]]", chance: random.Random, number: int, seq: int
    ) -> int:
        rows = []
        for row in range(chance.randint(1, 5)):
            payload: dict[str, Any] = {"seq": seq + row}
            event_type = "Noticed" if chance.random() < 0.01 else "Noted"
            if event_type == "Noted" and chance.random() < 0.01:
                payload["extra"] = chance.choice([1, "é", None])
            rows.append((f"w{number}-{chance.randrange(4)}", event_type, json.dumps(payload)))
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(
                "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', %s, %s, %s)", rows
            )
        return seq + len(rows)


@pytest.fixture
def careful(pipeline: Pipeline) -> Pipeline:
    """A pipeline that sends poison events to its dead-letter topic."""
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    return pipeline


def rows(pipeline: Pipeline) -> tuple[dict[str, int], dict[str, int]]:
    """The table's good and poison rows, each a mapping of id to seq."""
    good: dict[str, int] = {}
    bad: dict[str, int] = {}
    for row_id, event_type, payload in pipeline.sql("select id, type, payload from outbox"):
        fits = event_type == "Noted" and "extra" not in payload
        (good if fits else bad)[str(row_id)] = payload["seq"]
    return good, bad


def listed(pipeline: Pipeline, *options: str) -> dict[str, dict[str, Any]]:
    """The output of `dlq list`, by id."""
    done = pipeline.run("dlq", "list", "--json", *options)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({letter["id"] for letter in found}) == len(found)
    return {letter["id"]: letter for letter in found}


def dead(pipeline: Pipeline) -> list[Received]:
    """All records of the dead-letter topic, including markers."""
    return read_all(pipeline.kafka, f"{pipeline.prefix}dead", lambda value: value)


def seqs(records: list[Received], wanted: Callable[[Received], bool]) -> dict[str, list[int]]:
    """The numbers of first occurrences in order, by key."""
    seen: set[str] = set()
    found: dict[str, list[int]] = {}
    for record in records:
        if record.id not in seen and wanted(record):
            seen.add(record.id)
            found.setdefault(record.key, []).append(record.value["seq"])
    return found


def test_c8_poison_under_load_and_kills_goes_to_dead_letters_and_the_rest_in_order(
    careful: Pipeline,
) -> None:
    chance = random.Random(8)
    with Careless(careful.dsn, writers=3, pause=0.001):
        for _ in range(8):
            running = careful.start().streams()
            time.sleep(chance.uniform(0.2, 0.8))
            running.kill()
    running = careful.start().streams()
    careful.settles()  # the slot has passed every poison event
    assert running.stop() == 0

    good, bad = rows(careful)
    assert len(good) > 1000
    assert len(bad) > 10
    records = careful.records()
    assert {record.id for record in records} == good.keys()
    for numbers in seqs(records, lambda _: True).values():
        assert numbers == sorted(numbers)
    letters = listed(careful)
    assert letters.keys() == bad.keys()
    assert {letter["error"] for letter in letters.values()} == {"contract-missing", "payload-mismatch"}
    told = [line for line in running.log if line["message"].startswith("an event became a dead letter")]
    assert all(line["level"] == "warning" and line["id"] in bad for line in told)

    # No contract matches yet: all letters stay, with any options.
    some = next(letter["id"] for letter in letters.values() if letter["error"] == "contract-missing")
    assert careful.run("dlq", "replay", some, "--yes").returncode == 1
    assert len(careful.records()) == len(records)

    # The contracts are fixed one after the other, while the publisher is stopped.
    (careful.folder / "schemas" / "Noticed.avsc").write_text(json.dumps(NOTICED))
    planned = careful.run("dlq", "replay", "--type", "Noticed", "--dry-run")
    assert planned.returncode == 0
    assert f"would send {some} at " in planned.stdout
    assert len(careful.records()) == len(records)
    assert careful.run("dlq", "replay", some, "--yes").returncode == 0
    assert {record.id for record in careful.records()} == good.keys() | {some}
    by_filter = careful.run("dlq", "replay", "--error", "contract-missing", "--yes")
    assert (by_filter.returncode, by_filter.stderr) == (0, "")
    left = listed(careful)
    assert left.keys() == {row_id for row_id in bad if letters[row_id]["error"] == "payload-mismatch"}

    careful.settings["avro"]["unknown_fields"] = "ignore"
    done = careful.run("dlq", "replay", "--all", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    again = careful.run("dlq", "replay", "--all", "--yes")
    assert (again.returncode, again.stdout) == (0, f"nothing to replay in {careful.prefix}dead\n")
    assert listed(careful) == {}
    assert listed(careful, "--all").keys() == bad.keys()
    everything = careful.records()
    assert {record.id for record in everything} == good.keys() | bad.keys()
    times = Counter(record.id for record in everything)
    assert all(times[row_id] == 1 for row_id in bad)
    positions = {record.id: record.position for record in everything}
    assert all(letters[row_id]["position"] == positions[row_id] for row_id in bad)
    late = seqs(everything, lambda r: letters.get(r.id, {}).get("error") == "payload-mismatch")
    assert all(numbers == sorted(numbers) for numbers in late.values())


def test_c8_poison_in_the_middle_of_a_transaction_holds_up_neither_it_nor_the_slot(careful: Pipeline) -> None:
    running = careful.start().streams()
    careful.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'k',"
        " case when n % 50 = 25 then 'Noticed' else 'Noted' end, jsonb_build_object('seq', n)"
        " from generate_series(1, 1000) n"
    )
    careful.insert(1001)
    careful.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in careful.records()] == [n for n in range(1, 1002) if n % 50 != 25]
    letters = [letter for letter in dead(careful) if letter.header("cdc-error-class") == "contract-missing"]
    assert [json.loads(letter.raw)["seq"] for letter in letters] == list(range(25, 1001, 50))
    (first, *_) = letters
    assert (first.key, first.header("cdc-topic"), first.header("cdc-payload")) == ("k", careful.topic, "json")
    (record,) = [record for record in careful.records() if record.value["seq"] == 26]
    assert first.timestamp == record.timestamp
    assert first.position < record.position


def test_c8_unreadable_rows_are_parked_with_their_readable_columns(careful: Pipeline) -> None:
    careful.sql("alter table outbox alter type drop not null, alter payload drop not null")
    running = careful.start().streams()
    careful.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values"
        " ('no topic!', 'k', 'Noted', '{\"seq\": 1}'), ('note', 'k', null, '{\"seq\": 2}'),"
        " ('note', 'k', 'Noted', null), ('note', 'k', '', '{\"seq\": 4}')"
    )
    careful.insert(5)
    careful.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in careful.records()] == [5]
    assert [(letter.header("cdc-error-class"), letter.header("cdc-topic"), letter.raw) for letter in dead(careful)] == [
        ("unreadable-row", "", b'{"seq": 1}'),
        ("unreadable-row", careful.topic, b'{"seq": 2}'),
        ("unreadable-row", careful.topic, None),
        ("contract-missing", careful.topic, b'{"seq": 4}'),
    ]
    done = careful.run("dlq", "replay", "--all", "--yes")
    assert done.returncode == 1
    assert done.stdout == "replayed 0 dead letters; 4 not replayed\n"


def test_c7_event_too_large_for_its_topic_becomes_a_dead_letter_only_if_it_fits(careful: Pipeline) -> None:
    careful.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values"
        " ('note', 'k', 'Noted', jsonb_build_object('seq', 1, 'text', repeat('x', 1500000)))"
    )
    careful.insert(2)
    running = careful.start()
    assert running.wait() == 1  # the dead-letter topic takes no more than the other
    assert f"is too large for topic '{careful.prefix}dead'" in running.messages()[-1]
    assert careful.records() == []

    limit_records(careful.kafka, f"{careful.prefix}dead", 4_000_000)
    running = careful.start().streams()
    careful.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in careful.records()] == [2]
    (letter,) = listed(careful).values()
    assert letter["error"] == "too-large"
    assert careful.run("dlq", "replay", letter["id"], "--yes").returncode == 1
    limit_records(careful.kafka, careful.topic, 4_000_000)
    assert careful.run("dlq", "replay", letter["id"], "--yes").returncode == 0
    assert {record.value["seq"] for record in careful.records()} == {1, 2}


def test_c8_kill_9_during_a_replay_repeats_and_skips_nothing(careful: Pipeline) -> None:
    count = 20_000
    careful.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'k' || n % 5, 'Noticed',"
        f" jsonb_build_object('seq', n) from generate_series(1, {count}) n"
    )
    running = careful.start().streams()
    careful.settles()
    assert running.stop() == 0
    (careful.folder / "schemas" / "Noticed.avsc").write_text(json.dumps(NOTICED))
    assert careful.records() == []

    kills = 0
    while kills < 3 or (killed := len(listed(careful))) == count:  # a busy machine kills before a first commit
        replay = careful.process("dlq", "replay", "--all", "--yes")
        grows(careful, 1000)
        assert replay.process.poll() is None
        replay.kill()
        kills += 1
    assert killed > 0
    done = careful.run("dlq", "replay", "--all", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"replayed {killed:,} dead letters, each after")
    records = careful.records()
    assert len(records) == len({record.id for record in records}) == count
    for numbers in seqs(records, lambda _: True).values():
        assert numbers == sorted(numbers)
    assert len(dead(careful)) == 2 * count


def grows(pipeline: Pipeline, records: int) -> None:
    """Wait until the dead-letter topic has so many more records, also of open transactions."""
    place = TopicPartition(f"{pipeline.prefix}dead", 0)
    properties = {"bootstrap.servers": pipeline.kafka, "group.id": "end", "isolation.level": "read_uncommitted"}
    with closing(Consumer(properties)) as consumer:

        def end() -> int:
            return int(consumer.get_watermark_offsets(place, timeout=30)[1])

        enough = end() + records
        eventually(lambda: end() > enough, "markers")


def limit_records(kafka: str, topic: str, size: int) -> None:
    """Set `max.message.bytes` of the topic."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.incremental_alter_configs([resource])[resource].result()

"""`dlq list`, `show` and `replay` on a real Kafka, as their user sees them."""

import json
import os
import pty
import subprocess
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from cdc.config.settings import Settings
from cdc.dead_letters.producer import Destinations, Outgoing, ResendProducer
from cdc.dead_letters.replays import marker
from cdc.errors import KafkaError, PoisonEvent
from cdc.lsn import LSN
from cdc.outbox.columns import Columns, Header
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.records.dead_letters import DeadLetter, DeadLetters
from cdc.records.record import Record
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row
from tests.pipeline import Pipeline
from tests.producing import in_order
from tests.reader import Received, read_all
from tests.registry import Double
from tests.servers import Servers
from tests.unit import frames
from tests.unit.shop import COLUMNS, OID, TEXT

RELATION = frames.relation(OID, "outbox", [*COLUMNS, ("tenant", TEXT)])
SECOND = 1_785_542_400


class Yard:
    """Dead letters of notes, as a publisher leaves them. Letter `n` has the id and the commit LSN n."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.topic = f"{pipeline.prefix}dead"
        self._producer = in_order(pipeline.kafka, partitioner="murmur2_random")

    def bury(self, *records: Record) -> None:
        for topic, value, key, _, _, _, timestamp, headers in records:
            self._producer.produce(topic, value, key, timestamp=timestamp, headers=headers)
        assert self._producer.flush(30) == 0

    def letter(
        self,
        number: int,
        payload: str | None = None,
        *,
        key: str | None = "k",
        event_type: str = "Noted",
        aggregate: str = "note",
        kind: str = "payload-mismatch",
        stream: str = "0badcafe",
    ) -> Record:
        payload = json.dumps({"seq": number}) if payload is None else payload
        outbox = Outbox(
            stream, Columns(), TopicTemplate(f"{self.pipeline.prefix}{{aggregatetype}}"), [Header("tenant", "tenant")]
        )
        cells = (str(number), aggregate, key, event_type, payload, "acme")
        row = Row(Ledger().begin(LSN(number), (SECOND + number) * 1000), 0, RELATION, frames.row(*cells))
        reason = f"{event_type} $.seq: number {number} was bad"
        try:
            event = outbox.event(row)
        except PoisonEvent as unreadable:
            return DeadLetters(self.topic, outbox).record(row, None, unreadable)
        poison = PoisonEvent(reason, position=outbox.position(row), event_id=event.id, kind=kind)
        return DeadLetters(self.topic, outbox).record(row, event, poison)

    def listed(self, *options: str) -> list[int]:
        """The ids that `dlq list` prints."""
        return [int(letter["id"]) for letter in self.json("list", *options)]

    def json(self, *command: str) -> list[dict[str, Any]]:
        done = self.run(*command, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return self.pipeline.run("dlq", *command)

    def notes(self) -> list[Received]:
        return self.pipeline.records()

    def records(self) -> list[Received]:
        """All of the dead-letter topic, markers too."""
        return read_all(self.pipeline.kafka, self.topic, lambda value: value)


def position(number: int, stream: str = "0badcafe") -> str:
    return f"{stream}-{number:016X}-00000000"


@pytest.fixture
def yard(bare_pipeline: Pipeline) -> Yard:
    bare_pipeline.settings["postgres"].pop("dsn")  # not needed
    bare_pipeline.settings["outbox"] = {"headers": ["tenant"]}
    bare_pipeline.create_topic(f"{bare_pipeline.prefix}dead", 1)
    bare_pipeline.create_topic(bare_pipeline.topic)
    return Yard(bare_pipeline)


def test_letters_are_listed_each_once_in_the_order_of_positions(yard: Yard) -> None:
    sent = [yard.letter(number) for number in (1, 2, 3, 2, 3, 4)]  # 2 and 3 came again after a crash
    yard.bury(*sent, yard.letter(9, stream="0000aaaa"))
    assert yard.listed() == [1, 2, 3, 4, 9]
    assert yard.json("list", "--limit", "1") == [
        {
            "id": "1",
            "position": position(1),
            "type": "Noted",
            "topic": yard.pipeline.topic,
            "key": "k",
            "committed": "2026-08-01T00:00:01.000Z",
            "error": "payload-mismatch",
            "message": "Noted $.seq: number 1 was bad",
            "replayed": None,
        }
    ]
    table = yard.run("list", "--limit", "2").stdout.split("\n")
    assert table[0].split() == ["committed", "id", "type", "key", "topic", "error"]
    assert [line.split()[:5] for line in table[1:3]] == [
        [f"2026-08-01T00:00:0{number}Z", str(number), "Noted", "k", yard.pipeline.topic] for number in (1, 2)
    ]
    assert table[3:] == ["3 more", ""]


def test_letters_are_chosen_by_time_type_key_topic_and_error(yard: Yard) -> None:
    yard.bury(
        yard.letter(1),
        yard.letter(2, key="other"),
        yard.letter(3, event_type="Noticed", kind="contract-missing"),
        yard.letter(4, aggregate="task"),
    )
    for options, expected in (
        (("--since", "2026-08-01T00:00:02Z"), [2, 3, 4]),
        (("--since", "2026-08-01T00:00:02Z", "--until", "2026-08-01T00:00:03"), [2, 3]),
        (("--since", "2027-01-01"), []),
        (("--type", "Noticed"), [3]),
        (("--key", "other"), [2]),
        (("--topic", f"{yard.pipeline.prefix}task"), [4]),
        (("--error", "contract-missing"), [3]),
        (("--error", "NUMBER 4"), [4]),
        (("--key", "k", "--error", "payload-mismatch"), [1, 4]),
    ):
        assert yard.listed(*options) == expected, options
    assert yard.run("list", "--key", "nobody").stdout == f"no dead letters in {yard.topic} that match\n"


def test_one_letter_is_shown_with_all_that_it_holds(yard: Yard) -> None:
    yard.bury(yard.letter(1), yard.letter(2, '{"seq": 3000000000000000000000, "text": "\\u001b[31m"}'))
    shown = yard.run("show", "2").stdout
    assert shown == yard.run("show", position(2)).stdout
    for line in (
        f"event 2 at position {position(2)}",
        "  type       Noted",
        "  error      payload-mismatch: Noted $.seq: number 2 was bad",
        f"  record     {yard.topic}, partition 0, offset 1",
        "  header tenant acme",
        '    "seq": 3000000000000000000000,',
    ):
        assert line in shown.split("\n")
    (one,) = yard.json("show", "1")
    assert one["payload"] == {"seq": 1}
    assert (one["headers"], one["aggregate"], one["offset"]) == ({"tenant": "acme"}, "note", 0)


def test_a_replay_sends_what_the_publisher_would_have_sent_and_marks_it(yard: Yard) -> None:
    yard.bury(*map(yard.letter, (1, 2, 3)))
    done = yard.run("replay", "2", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "replayed 1 dead letter, after later events of its key\n"
    (note,) = yard.notes()
    assert (note.key, note.value["seq"], note.timestamp[1]) == ("k", 2, (SECOND + 2) * 1000)
    assert [name for name, _ in note.headers] == ["id", "eventType", "cdc-position", "tenant", "cdc-replayed"]
    assert (note.id, note.position, note.header("tenant")) == ("2", position(2), "acme")
    mark = yard.records()[-1]
    assert (mark.key, mark.value, mark.position) == ("k", None, position(2))
    assert mark.header("cdc-replayed") == note.header("cdc-replayed")
    assert yard.listed() == [1, 3]
    assert yard.listed("--all") == [1, 2, 3]

    again = yard.run("replay", "2", "--yes")
    assert again.returncode == 0
    assert again.stdout == f"2 was replayed {note.header('cdc-replayed')}\nnothing to replay in {yard.topic}\n"
    assert yard.run("replay", "--all", "--yes").returncode == 0
    assert yard.run("replay", "--all", "--yes").stdout == f"nothing to replay in {yard.topic}\n"
    assert [note.value["seq"] for note in sorted(yard.notes(), key=lambda note: note.offset)] == [2, 1, 3]
    assert yard.run("list").stdout == f"no dead letters in {yard.topic} that wait for replay\n"


def test_replays_keep_the_order_of_positions_over_partitions_and_transactions(yard: Yard) -> None:
    yard.topic += "-wide"
    yard.pipeline.settings["topics"]["dead_letter"] = yard.topic
    yard.pipeline.create_topic(yard.topic, 4)
    keys = [f"k{number % 7}" for number in range(1, 1301)]
    late = [yard.letter(number, key=keys[number - 1]) for number in (1, 4)]
    # What was poison in a second session only stands behind what was poison in the first.
    yard.bury(*(yard.letter(n, key=key) for n, key in enumerate(keys, 1) if n not in (1, 4)), *late)
    done = yard.run("replay", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    notes = yard.notes()
    assert len(notes) == 1300
    by_key: dict[str, list[int]] = {}
    for note in notes:
        by_key.setdefault(note.key, []).append(note.value["seq"])
    assert all(seqs == sorted(seqs) for seqs in by_key.values())


def test_what_still_does_not_fit_is_told_and_stays_and_the_rest_is_sent(yard: Yard) -> None:
    yard.bury(
        yard.letter(1, event_type="Noticed"),
        yard.letter(2),
        yard.letter(3, '{"seq": "three"}'),
        yard.letter(4, aggregate="no topic"),
        yard.letter(5, aggregate="missing"),
        yard.letter(7),
    )
    planned = yard.run("replay", "--all", "--dry-run")
    assert planned.returncode == 1
    assert planned.stdout.split("\n")[:2] == [
        f"would send 2 at {position(2)} to {yard.pipeline.topic} (12 bytes)",
        f"would send 7 at {position(7)} to {yard.pipeline.topic} (12 bytes)",
    ]
    assert yard.notes() == []
    assert yard.listed() == [1, 2, 3, 4, 5, 7]

    done = yard.run("replay", "--all", "--yes")
    assert done.returncode == 1
    told = done.stderr.strip().split("\n")
    assert len(told) == 4
    assert f"stays: 1 at {position(1)}: no contract for event type 'Noticed'" in told[0]
    assert 'Noted $.seq: "three" is not a long' in told[1]
    assert "the row itself is broken: " in told[2]
    assert "no topic' is not a valid topic name" in told[2]
    assert "missing' does not exist" in told[3]
    assert done.stdout == "replayed 2 dead letters, each after later events of its key; 4 not replayed\n"
    assert [note.value["seq"] for note in yard.notes()] == [2, 7]
    assert yard.listed() == [1, 3, 4, 5]


def test_a_record_that_is_too_large_for_its_topic_today_stays_c7(yard: Yard) -> None:
    yard.bury(yard.letter(1, json.dumps({"seq": 1, "text": "x" * 5000}), aggregate="small"), yard.letter(2))
    small = f"{yard.pipeline.prefix}small"
    yard.pipeline.create_topic(small, 1)
    _limit(yard.pipeline, small, 4096)
    done = yard.run("replay", "--all", "--yes")
    assert done.returncode == 1
    assert f"is too large for topic '{small}', which takes 4096" in done.stderr
    assert [note.value["seq"] for note in yard.notes()] == [2]
    _limit(yard.pipeline, small, 1_000_000)
    assert yard.run("replay", "1", "--yes").returncode == 0
    assert sorted(note.value["seq"] for note in yard.notes()) == [1, 2]


def _limit(pipeline: Pipeline, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.incremental_alter_configs([resource])[resource].result()


def test_a_replay_frames_as_the_registry_says_and_waits_for_one_that_is_down_only_so_long(yard: Yard) -> None:
    yard.bury(yard.letter(1))
    with Double() as registry:
        yard.pipeline.settings["schema_registry"] = {"url": registry.url, "timeout_seconds": 1}
        yard.pipeline.settings["avro"]["framing"] = "confluent"
        refused = yard.run("replay", "--all", "--yes")
        assert refused.returncode == 1
        assert "Noted has no schema id:" in refused.stderr
        assert "is not registered under subject" in refused.stderr
        assert yard.pipeline.run("schema", "register", "--topic", yard.pipeline.topic).returncode == 0
        assert yard.run("replay", "--all", "--yes").returncode == 0
        (note,) = yard.notes()
        assert note.raw == b"\x00\x00\x00\x00\x01\x02\x00"
        yard.bury(yard.letter(2))
    down = yard.run("replay", "--all", "--yes")
    assert down.returncode == 75
    assert "the registry has not returned the schema id of Noted" in down.stderr
    assert yard.listed() == [2]


def test_a_missing_topic_is_created_by_a_replay_when_it_may_be_but_not_by_a_dry_run_c12(yard: Yard) -> None:
    yard.bury(yard.letter(1, aggregate="new"))
    yard.pipeline.settings["topics"]["create"] = True
    planned = yard.run("replay", "--all", "--dry-run")
    assert (planned.returncode, planned.stdout.split("\n")[1]) == (
        0,
        "would replay 1 dead letter, after later events of its key",
    )
    admin = AdminClient({"bootstrap.servers": yard.pipeline.kafka})
    assert f"{yard.pipeline.prefix}new" not in admin.list_topics(timeout=30).topics
    done = yard.run("replay", "--all", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert [note.topic for note in yard.notes()] == [f"{yard.pipeline.prefix}new"]


def test_a_replay_asks_first_on_a_terminal_and_says_nothing_stands_before_later_events(yard: Yard) -> None:
    yard.bury(yard.letter(1))
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, b"n\n")
        command = yard.pipeline.command("dlq", "replay", "--all")
        asked = subprocess.run(command, stdin=terminal, capture_output=True, text=True, timeout=60, check=False)
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert asked.returncode == 130
    assert "Send 1 dead letter now, after later events of its key? [y/N]" in asked.stdout
    assert yard.notes() == []
    assert yard.run("replay", "--all").returncode == 0
    assert len(yard.notes()) == 1


def test_what_is_wrong_is_told_in_one_line_with_its_exit_code(yard: Yard) -> None:
    yard.bury(yard.letter(1))

    def fails(code: int, phrase: str, *command: str) -> None:
        done = yard.run(*command)
        assert done.returncode == code, done.stderr
        assert phrase in done.stderr.strip().split("\n")[-1]
        assert "Traceback" not in done.stderr

    fails(1, f"topic '{yard.topic}' has no dead letter with id or position 'nobody'", "show", "nobody")
    fails(1, "has no dead letter with id or position 'nobody'", "replay", "1", "nobody", "--yes")
    assert yard.notes() == []
    fails(2, "select dead letters by ID, by options, or with --all", "replay", "--yes")
    fails(2, "by options, or with --all", "replay", "1", "--all", "--yes")
    fails(2, "'soon' is neither a time", "list", "--since", "soon")
    settings = yard.pipeline.settings
    settings["topics"]["dead_letter"] = f"{yard.topic}-nowhere"
    fails(1, "-nowhere' does not exist; check [topics] dead_letter, or run: cdc-publisher outbox init", "list")
    settings["topics"]["dead_letter"] = yard.topic
    settings["avro"]["schemas"] = "nowhere"
    fails(78, "nowhere is not a folder", "replay", "1", "--yes")
    settings["kafka"]["bootstrap.servers"] = "127.0.0.1:1"
    fails(75, "Kafka cannot be reached at 127.0.0.1:1", "list")
    settings["kafka"].clear()
    fails(78, '[kafka] "bootstrap.servers" is required', "list")


def test_a_second_replay_ends_the_first_and_nothing_is_sent_twice(yard: Yard, servers: Servers) -> None:
    letter = yard.letter(1)
    yard.bury(letter)
    settings = Settings.model_validate(
        {"kafka": {"bootstrap.servers": servers.kafka}, "topics": {"dead_letter": yard.topic}}
    )
    first = ResendProducer(settings, Destinations(settings, dry_run=False))
    first.begin()
    assert yard.run("replay", "1", "--yes").returncode == 0
    known = DeadLetter(position(1), "1", "Noted", "", "", b"k", 0, "", "", None, "json", [])
    event = letter._replace(topic=yard.pipeline.topic)
    with pytest.raises(KafkaError, match="another replay of this topic has begun"):
        first.send([Outgoing(event, marker(yard.topic, known, "now", 0), 0)])
    first.close()
    assert len(yard.notes()) == 1


def test_what_kafka_itself_refuses_stays_and_the_rest_of_its_transaction_is_sent_c7(
    yard: Yard, servers: Servers
) -> None:
    small = f"{yard.pipeline.prefix}small"
    yard.pipeline.create_topic(small, 1)
    yard.bury(yard.letter(1), yard.letter(2))
    _limit(yard.pipeline, small, 4096)  # after its size was looked at, as far as this replay knows
    settings = Settings.model_validate(
        {"kafka": {"bootstrap.servers": servers.kafka}, "topics": {"dead_letter": yard.topic}}
    )
    replay = ResendProducer(settings, Destinations(settings, dry_run=False))
    replay.begin()
    batch = []
    for number, topic in ((1, small), (2, yard.pipeline.topic)):
        letter = yard.letter(number)._replace(topic=topic, value=b"x" * 5000)
        known = DeadLetter(position(number), str(number), "Noted", "", "", b"k", 0, "", "", None, "json", [])
        batch.append(Outgoing(letter, marker(yard.topic, known, "now", 0), 0))
    refused = replay.send(batch)
    replay.close()
    assert [(place, "MSG_SIZE_TOO_LARGE" in str(error)) for place, error in refused.items()] == [(0, True)]
    assert [note.id for note in yard.notes()] == ["2"]
    assert yard.listed() == [1]

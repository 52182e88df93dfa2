"""What is said of a publisher from its slot and Kafka's memory alone."""

from dataclasses import replace

import orjson
import pytest

from cdc.lsn import LSN
from cdc.status import from_slot
from cdc.status.document import StatusDocument
from cdc.status.from_metrics import describe
from cdc.status.from_slot import Remembered, SlotFacts, Walsender
from tests import specimen

SEEN = SlotFacts(
    slot="cdc_publisher",
    publication="outbox",
    time="2026-01-31T10:00:00.000Z",
    wal_end=LSN(13_300_000),
    timeline=1,
    exists=True,
    confirmed=LSN(1_000_000),
    retained_bytes=12_400_000,
    limit_bytes=100_000_000,
    safe_bytes=87_600_000,
    wal_status="reserved",
    unread_since="2026-01-31T09:00:00.000Z",
    table="public.outbox",
    rows=1200,
)
NEVER = ("replication slot 'cdc_publisher' does not exist", "if it never existed, run: cdc-publisher slot create")
GONE = replace(SEEN, exists=False, confirmed=None, problem=NEVER)
READER = Walsender(4711, from_slot.STREAM, "10.0.0.7", "2026-01-31T08:00:00.000Z", "streaming", 0.2)
READ = replace(SEEN, reader=READER, unread_since=None)
MEMORY = Remembered(LSN(1_000_000), 1, 12.0)


def told(seen: SlotFacts, remembered: Remembered = MEMORY) -> StatusDocument:
    return from_slot.describe(seen, remembered)


def test_a_slot_without_a_reader_shows_its_lag_and_how_to_start() -> None:
    found = told(SEEN)
    assert (found.state, found.running, found.ready, found.exit_code) == ("stopped", False, False, 1)
    assert found.summary == "no process reads the slot; 12.3 MB behind"
    assert found.hint == "start it with: cdc-publisher start"
    assert found.since == "2026-01-31T09:00:00.000Z"
    assert (found.lag.bytes, found.lag.seconds, found.lag.events) == (12_300_000, None, None)
    assert found.memory
    assert (found.memory.confirmed, found.memory.age_seconds) == ("0/F4240", 12.0)


def test_nothing_to_catch_up_with_is_not_called_behind() -> None:
    assert told(replace(SEEN, confirmed=SEEN.wal_end)).summary == "no process reads the slot"
    assert told(replace(SEEN, confirmed=LSN(SEEN.wal_end - 700))).summary == "no process reads the slot; 700 B behind"


@pytest.mark.parametrize(("walsender", "state"), [("streaming", "streaming"), ("catchup", "catching_up")])
def test_a_slot_with_a_reader_names_the_reader(walsender: str, state: str) -> None:
    found = told(replace(READ, reader=replace(READER, state=walsender)))
    assert (found.state, found.running, found.ready, found.exit_code) == (state, True, None, 0)
    assert found.summary == "pid 4711 (cdc-publisher stream at 10.0.0.7) reads the slot; 12.3 MB behind"
    assert found.slot.active_pid == 4711
    assert found.since == READER.since
    assert found.notes == []


def test_a_reader_of_another_program_or_without_a_word_is_noted() -> None:
    stranger = told(replace(READ, reader=replace(READER, application="Debezium Streaming")))
    assert stranger.notes == ["the reader calls itself 'Debezium Streaming': it is not cdc-publisher"]
    silent = told(replace(READ, reader=replace(READER, silent_seconds=42.0)))
    assert silent.notes == ["the reader has not reported for 42 s: it may be stuck"]


def test_a_reader_hidden_from_the_role_is_named_by_its_pid() -> None:
    found = told(replace(READ, reader=Walsender(4711, None, None, None, None, None)))
    assert (found.state, found.summary) == ("streaming", "pid 4711 reads the slot; 12.3 MB behind")
    assert found.notes == []


def test_a_slot_without_a_position_in_kafka_was_not_created_yet() -> None:
    found = told(GONE, Remembered())
    assert (found.state, found.exit_code) == ("stopped", 1)
    assert found.summary == "replication slot 'cdc_publisher' does not exist: it has not been created yet"
    assert found.hint == "run: cdc-publisher slot create"


def test_a_missing_slot_with_a_position_in_kafka_is_lost() -> None:
    found = told(GONE, MEMORY)
    assert (found.state, found.exit_code) == ("slot_lost", 1)
    assert (
        found.summary
        == "replication slot 'cdc_publisher' does not exist any more: its last position in Kafka is 0/F4240"
    )
    assert found.hint == "run: cdc-publisher recover"


@pytest.mark.parametrize("remembered", [Remembered(asked=False), Remembered(problem="Kafka does not answer")])
def test_where_kafka_says_nothing_a_missing_slot_may_be_either(remembered: Remembered) -> None:
    found = told(GONE, remembered)
    assert (found.state, found.summary, found.hint) == ("slot_lost", *NEVER)


def test_an_invalidated_slot_is_lost_with_its_reason() -> None:
    found = told(replace(SEEN, wal_status="lost", problem=("replication slot is lost (wal_removed)", "drop it")))
    assert (found.state, found.summary, found.hint) == (
        "slot_lost",
        "replication slot is lost (wal_removed)",
        "drop it",
    )


def test_a_slot_of_another_database_is_a_failure() -> None:
    found = told(replace(SEEN, database="shop"))
    assert (found.state, found.exit_code, found.hint) == ("failed", 1, "check [postgres] dsn")
    assert found.summary == "replication slot 'cdc_publisher' belongs to database 'shop'"


def test_the_danger_of_a_slot_is_noted() -> None:
    assert told(replace(READ, warning="PostgreSQL takes it away soon")).notes == ["PostgreSQL takes it away soon"]


def test_a_slot_ahead_of_its_position_in_kafka_is_noted() -> None:
    (note,) = told(SEEN, replace(MEMORY, confirmed=LSN(999_999))).notes
    assert "it was advanced, or dropped and created again; start will refuse it" in note
    assert told(SEEN, replace(MEMORY, confirmed=LSN(999_999), timeline=2)).notes == []  # that LSN means another place
    assert told(SEEN, replace(MEMORY, confirmed=LSN(2_000_000))).notes == []
    assert told(READ, replace(MEMORY, confirmed=LSN(999_999))).notes == []  # it has moved since


def test_it_is_said_when_kafka_did_not_answer() -> None:
    (note,) = told(SEEN, Remembered(problem="no broker answers")).notes
    assert note == "the slot's last position in Kafka is unknown: no broker answers"


def test_the_json_has_the_shape_of_the_publishers_own() -> None:
    """Every name that `/status` has is there, with null for what only the process knows."""
    ours = orjson.loads(told(SEEN).json_line())
    theirs = describe(specimen.metrics(1_790_000_000.0), specimen.IDENTITY, 1_790_000_000.0).served()
    assert theirs.keys() <= ours.keys()
    for part in ("slot", "lag", "rate", "totals", "in_flight", "latency", "encode", "history"):
        assert theirs[part].keys() <= ours[part].keys(), part
    assert ours["publisher"] is None
    assert ours["totals"]["events"] is None
    assert ours["source"] == "database"

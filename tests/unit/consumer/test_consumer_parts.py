"""Parts of the consumer: properties, retries, order of partitions, and dead letters."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.consumer import Consumer, Event, Inbox, Retry
from cdc.consumer.assignment import Assignment
from cdc.consumer.dead_letters import headers
from cdc.consumer.log_limit import LogLimit
from cdc.consumer.properties import DEFAULTS, consumer
from cdc.errors import ConfigError

KAFKA: dict[str, Any] = {"bootstrap.servers": "localhost:1", "group.id": "g"}


def event(offset: int, partition: int = 0, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "timestamp": 1000, "key": b"k", "raw": b"v", "headers": (("id", b"e"), ("x", None)), "id": "e", "type": "T",
        "position": None, "sequence": None,
    }  # fmt: skip
    return Event("t", partition, offset, **{**fields, **more})


def refusal(properties: dict[str, Any], *topics: str, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        Consumer({**KAFKA, **properties}, list(topics or ["t"]), print, **more)
    return refused.value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("isolation.level", "read_uncommitted"),
        ("enable.auto.commit", True),
        ("enable.auto.offset.store", "true"),
        ("auto.offset.reset", "latest"),
        ("allow.auto.create.topics", True),
    ],
)
def test_properties_that_break_guarantees_are_refused_with_the_reason(name: str, value: Any) -> None:
    (problem,) = refusal({name: value}).problems
    text = str(value).lower()
    assert problem.startswith(f'"{name}" = {text} is refused: ')
    assert len(problem) > len(f'"{name}" = {text} is refused: ') + 20


@pytest.mark.parametrize("name", DEFAULTS)
def test_properties_may_repeat_the_required_value(name: str) -> None:
    assert consumer({**KAFKA, name: DEFAULTS[name]}) == consumer(KAFKA)


def test_other_properties_pass_through() -> None:
    made = consumer({**KAFKA, "max.poll.interval.ms": 1000, "auto.offset.reset": "error"})
    assert made["max.poll.interval.ms"] == "1000"
    assert made["auto.offset.reset"] == "error"
    assert made["isolation.level"] == "read_committed"


def test_all_problems_are_reported_together() -> None:
    error = refusal({"group.id": "", "enable.auto.commit": True}, inbox=Inbox("x"), dead_letter="cdc.dead-letter")
    assert len(error.problems) == 4
    assert '"group.id" is missing' in error.problems


@pytest.mark.parametrize("subscribed", ["dead", "^de.*"])
def test_a_consumer_refuses_to_subscribe_to_its_dead_letters(subscribed: str) -> None:
    (problem,) = refusal({}, "t", subscribed, dead_letter="dead").problems
    assert "would be consumed, because" in problem


def test_a_consumer_without_topics_is_refused() -> None:
    with pytest.raises(ConfigError, match="topics is empty"):
        Consumer(KAFKA, [], print)


@given(st.integers(1, 200), st.floats(0, 1))
def test_pauses_double_up_to_the_longest_and_are_jittered(failures: int, chance: float) -> None:
    retry = Retry(attempts=5, first_seconds=0.5, longest_seconds=20.0)
    step = min(20.0, 0.5 * 2 ** (failures - 1))
    assert step / 2 <= retry.pause(failures, lambda: chance) <= step


@pytest.mark.parametrize(("attempts", "first", "longest"), [(0, 1, 1), (1, 0, 1), (1, 2, 1), (1, -1, 1)])
def test_an_invalid_retry_is_refused(attempts: int, first: float, longest: float) -> None:
    with pytest.raises(ConfigError):
        Retry(attempts, first, longest)


def test_one_paused_and_one_other_ready_partition_come_next() -> None:
    assignment = Assignment()
    assignment.add(("t", number) for number in range(5))
    for number in range(5):
        assert assignment.take(event(0, number))
    held = [partition for partition in assignment.ready(0.0) if partition.number == 0]
    assert [partition.number for partition in held] == [0]
    partitions = list(assignment._partitions.values())
    partitions[1].due, partitions[2].due, partitions[3].dead_lettering = 8.0, 5.0, True
    assert [partition.number for partition in assignment.ready(9.0)] == [2, 0]
    assert [partition.number for partition in assignment.ready(6.0)] == [2, 0]
    assert [partition.number for partition in assignment.ready(4.0)] == [0]
    assert assignment.due() == 0.0
    assert assignment.dead_lettering


def test_offsets_after_handled_events_are_committed_once() -> None:
    assignment = Assignment()
    assignment.add([("t", 0), ("t", 1)])
    assert assignment.take(event(41))
    assert assignment.take(event(45))
    (partition,) = assignment.ready(0.0)
    assert assignment.uncommitted() == {}
    partition.finish()
    assert assignment.uncommitted() == {("t", 0): 42}
    assert assignment.uncommitted([("t", 1)]) == {}
    assignment.committed("t", 0, 42)
    assert assignment.uncommitted() == {}
    partition.finish()
    assert assignment.uncommitted([("t", 0)]) == {("t", 0): 46}


def test_a_revoked_partition_loses_its_state() -> None:
    assignment = Assignment()
    assignment.add([("t", 0)])
    assert assignment.take(event(1))
    (partition,) = assignment.ready(0.0)
    partition.failures, partition.due = 3, 100.0
    assignment.forget([("t", 0), ("t", 7)])
    assert not assignment.is_current(partition)
    assert not assignment.take(event(2))
    assert assignment.due() is None
    assignment.add([("t", 0)])
    assert not assignment.is_current(partition)
    assert assignment.take(event(1))
    assert [again.failures for again in assignment.ready(0.0)] == [0]


def test_a_dead_letter_has_the_headers_of_the_event_and_the_error() -> None:
    old = (("id", b"e"), ("x", None), ("cdc-error-class", b"of an earlier dead letter"))
    made = headers(event(7, 3, headers=old, attempt=5), ValueError("no\0 \ud800 " + "x" * 2000), "g")
    by_name = dict(made)
    assert made[:2] == [("id", b"e"), ("x", None)]
    assert len(made) == len(by_name)
    assert by_name["cdc-error-class"] == "builtins.ValueError"
    message = by_name["cdc-error-message"]
    assert isinstance(message, str)
    assert message.startswith("no  ? xxx")
    assert len(message) == 1001
    del by_name["id"], by_name["x"], by_name["cdc-error-class"], by_name["cdc-error-message"]
    assert by_name == {
        "cdc-error-group": "g",
        "cdc-error-topic": "t",
        "cdc-error-partition": "3",
        "cdc-error-offset": "7",
        "cdc-error-timestamp": "1000",
        "cdc-error-attempts": "5",
    }


@pytest.mark.parametrize(
    "arguments",
    [{"consumer": ""}, {"consumer": "c\0"}, {"consumer": "c", "table": ""}, {"consumer": "c", "table": "t" * 64},
     {"consumer": "c", "schema": ""}, {"consumer": "c", "table": "a\0b"}],
)  # fmt: skip
def test_invalid_postgresql_names_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Inbox(**arguments)


def test_the_sql_of_an_inbox_quotes_its_names() -> None:
    made = Inbox("c", table='in"box; drop table x', schema="My Schema").sql
    assert made.startswith('CREATE TABLE "My Schema"."in""box; drop table x" (\n')
    assert made.endswith('CREATE INDEX ON "My Schema"."in""box; drop table x" (consumer, received_at);')
    assert Inbox("c").sql.startswith('CREATE TABLE "inbox" (')


def test_log_lines_beyond_the_limit_are_counted() -> None:
    log_limit = LogLimit()

    def fields(seconds: float) -> dict[str, Any] | None:
        record = logging.makeLogRecord({"created": seconds})
        return vars(record) if log_limit.filter(record) else None

    assert [bool(fields(1000 + n / 100)) for n in range(25)] == [True] * 10 + [False] * 15
    after = fields(1010.1)
    assert after
    assert after["not_shown"] == 15
    again = fields(1010.2)
    assert again
    assert "not_shown" not in again

"""Repeats: a few of a kind are told, then one with how many were left out; none is ever lost from the count."""

import itertools
import logging
import random
from collections.abc import Sequence
from typing import Any

import pytest

from cdc.logs.rate_limit import KINDS, SECONDS, TOLD, Repeats

LIBRDKAFKA = "cdc.kafka.librdkafka"
NAMES = ["".join(letters) * 200 for letters in itertools.product("abcdefghijk", repeat=3)]
assert len(NAMES) > KINDS


def record(
    message: str, created: float, *args: Any, name: str = "cdc.delivery.service", level: int = logging.WARNING
) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": name, "msg": message, "args": args, "levelno": level, "levelname": "ANY"})
    made.created = created
    return made


def repeated(told: Sequence[logging.LogRecord]) -> list[int]:
    return [getattr(one, "repeated", 0) for one in told]


def test_the_first_of_a_kind_are_told_at_once_and_then_one_with_the_count() -> None:
    repeats = Repeats()
    taken = [len(repeats.take(record("topic %r is away", 1000.0 + n / 10, f"t{n}"))) for n in range(25)]
    assert taken == [1] * TOLD + [0] * (25 - TOLD)
    assert repeats.due(1000.0 + SECONDS - 1) == []
    (summary,) = repeats.due(1000.0 + SECONDS)
    assert summary.getMessage() == "topic 't24' is away"  # the last of them
    assert repeated([summary]) == [25 - TOLD - 1]
    assert repeats.due(1000.0 + SECONDS + 1) == []


def test_one_that_goes_on_is_told_once_in_each_half_minute() -> None:
    repeats = Repeats()
    told = []
    for second in range(100):
        told += [(second, one) for one in repeats.due(1000.0 + second)]
        told += [(second, one) for one in repeats.take(record("again", 1000.0 + second))]
    assert [second for second, _ in told] == [0, 1, 2, 3, 4, 30, 60, 90]
    assert repeated([one for _, one in told])[TOLD:] == [24, 29, 29]


def test_one_that_comes_when_the_time_is_over_has_the_count_itself() -> None:
    repeats = Repeats()
    for n in range(TOLD + 3):
        repeats.take(record("again", 1000.0 + n))
    late = record("again", 1000.0 + SECONDS)
    assert repeated(repeats.take(late)) == [3]
    assert not hasattr(late, "repeated")  # other handlers have it too
    assert repeats.take(record("again", 1001.0 + SECONDS)) == []  # it goes on


def test_what_rests_is_told_as_new() -> None:
    repeats = Repeats()
    for n in range(TOLD):
        repeats.take(record("again", 1000.0 + n))
    assert len(repeats.due(1000.0 + SECONDS)) == 0
    assert [len(repeats.take(record("again", 1100.0 + n))) for n in range(TOLD + 1)] == [1] * TOLD + [0]


def test_what_was_held_back_is_told_before_the_next_line_of_its_logger() -> None:
    repeats = Repeats()
    for n in range(TOLD + 3):
        repeats.take(record("cannot connect", 1000.0 + n))
        repeats.take(record("elsewhere", 1000.0 + n, name="cdc.other"))
    told = repeats.take(record("streaming", 1010.0, level=logging.INFO))
    assert [one.getMessage() for one in told] == ["cannot connect", "streaming"]
    assert repeated(told) == [2, 0]
    assert repeats.take(record("cannot connect", 1011.0)) == []
    assert len(repeats.take(record("streaming", 1012.0, level=logging.INFO))) == 2


@pytest.mark.parametrize("seed", range(20))
def test_what_is_told_and_what_is_left_out_make_the_whole(seed: int) -> None:
    chance = random.Random(seed)
    repeats, now, told, count = Repeats(), 1000.0, list[logging.LogRecord](), 3000
    for _ in range(count):
        now += chance.choice([0, 0.001, 0.1, 7, 31, -20])
        kind = chance.choice("abcdefgh" if seed % 2 else NAMES)
        told += repeats.take(record(f"sentence {kind}", now, name=chance.choice(["a", LIBRDKAFKA])))
        if chance.random() < 0.1:
            told += repeats.due(now)
        assert len(repeats._windows) <= KINDS
    told += repeats.rest()
    assert len(told) + sum(repeated(told)) == count
    assert repeats.rest() == []


def test_a_kind_is_logger_level_and_sentence() -> None:
    repeats = Repeats()
    for n in range(TOLD):
        assert repeats.take(record("lost %s", 1000.0, n))
    assert repeats.take(record("lost %s", 1000.0, 1)) == []
    assert repeats.take(record("lost %s", 1000.0, 1, level=logging.ERROR))
    assert repeats.take(record("lost %s", 1000.0, 1, name="cdc.other"))
    assert repeats.take(record("lost %d", 1000.0, 1))


def test_of_a_sentence_that_is_an_error_only_numbers_may_differ() -> None:
    repeats = Repeats()
    for n in range(TOLD + 1):
        last = repeats.take(record("%s", 1000.0, f"refused after {n} ms"))
    assert last == []
    assert repeats.take(record("%s", 1000.0, "another error"))
    assert repeats.take(record("%s; %s", 1000.0, "refused after 1 ms", "wait"))


def test_details_and_the_end_are_never_held_back() -> None:
    repeats = Repeats()
    for level in (logging.DEBUG, logging.CRITICAL):
        assert all(repeats.take(record("again", 1000.0, level=level)) for _ in range(TOLD * 3))


def test_sentences_of_strangers_do_not_fill_the_memory_and_what_must_go_is_told() -> None:
    repeats = Repeats()
    for _ in range(TOLD + 2):
        repeats.take(record("first", 1000.0))
    told = [one for name in NAMES for one in repeats.take(record(name, 1000.0))]
    (first,) = [one for one in told if one.getMessage() == "first"]
    assert repeated([first]) == [1]
    assert len(repeats._windows) <= KINDS
    assert max(len(sentence) for _, _, sentence in repeats._windows) <= 300


def test_a_clock_that_is_set_back_holds_nothing_back_for_long() -> None:
    repeats = Repeats()
    for _ in range(TOLD + 1):
        repeats.take(record("again", 1_000_000.0))
    assert repeated(repeats.take(record("again", 1000.0))) == [1]


FAILED = "FAIL [rdkafka#producer-1] [thrd:h:1/bootstrap]: h:1/bootstrap: Connect failed (after {} ms)"


def test_what_librdkafka_repeats_comes_once_in_thirty_seconds() -> None:
    repeats = Repeats()
    seen = [repeats.take(record(FAILED.format(n), 1000.0 + n, name=LIBRDKAFKA)) for n in range(0, 65, 5)]
    assert [place for place, told in enumerate(seen) if told] == [0, 6, 12]
    assert repeated(seen[6]) == [5]


def test_another_broker_is_no_repeat() -> None:
    repeats = Repeats()
    for message in ("FAIL [x] [thrd:h:1]: f", "FAIL [x] [thrd:h:2]: f", "ERROR [x] [thrd:h:1]: f"):
        assert repeats.take(record(message, 1000.0, name=LIBRDKAFKA))

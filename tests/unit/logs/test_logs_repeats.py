"""The rate limit of logs: a few records of a kind are written, then one with the number of suppressed ones."""

import itertools
import logging
import random
from collections.abc import Sequence
from typing import Any

import pytest

from cdc.logs.rate_limit import BURST, KINDS, WINDOW_SECONDS, RateLimit

LIBRDKAFKA = "cdc.kafka.librdkafka"
NAMES = ["".join(letters) * 200 for letters in itertools.product("abcdefghijk", repeat=3)]
assert len(NAMES) > KINDS


def record(
    message: str, created: float, *args: Any, name: str = "cdc.delivery.service", level: int = logging.WARNING
) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": name, "msg": message, "args": args, "levelno": level, "levelname": "ANY"})
    made.created = created
    return made


def repeated(written: Sequence[logging.LogRecord]) -> list[int]:
    return [getattr(one, "repeated", 0) for one in written]


def test_the_first_records_of_a_kind_are_written_then_one_with_the_count() -> None:
    limit = RateLimit()
    taken = [len(limit.take(record("topic %r is away", 1000.0 + n / 10, f"t{n}"))) for n in range(25)]
    assert taken == [1] * BURST + [0] * (25 - BURST)
    assert limit.due(1000.0 + WINDOW_SECONDS - 1) == []
    (summary,) = limit.due(1000.0 + WINDOW_SECONDS)
    assert summary.getMessage() == "topic 't24' is away"  # the last of them
    assert repeated([summary]) == [25 - BURST - 1]
    assert limit.due(1000.0 + WINDOW_SECONDS + 1) == []


def test_a_repeated_record_is_written_once_per_window() -> None:
    limit = RateLimit()
    written = []
    for second in range(100):
        written += [(second, one) for one in limit.due(1000.0 + second)]
        written += [(second, one) for one in limit.take(record("again", 1000.0 + second))]
    assert [second for second, _ in written] == [0, 1, 2, 3, 4, 30, 60, 90]
    assert repeated([one for _, one in written])[BURST:] == [24, 29, 29]


def test_a_record_after_the_window_has_the_count() -> None:
    limit = RateLimit()
    for n in range(BURST + 3):
        limit.take(record("again", 1000.0 + n))
    late = record("again", 1000.0 + WINDOW_SECONDS)
    assert repeated(limit.take(late)) == [3]
    assert not hasattr(late, "repeated")  # other handlers have it too
    assert limit.take(record("again", 1001.0 + WINDOW_SECONDS)) == []  # a new window


def test_after_rest_all_kinds_are_new() -> None:
    limit = RateLimit()
    for n in range(BURST):
        limit.take(record("again", 1000.0 + n))
    assert len(limit.due(1000.0 + WINDOW_SECONDS)) == 0
    assert [len(limit.take(record("again", 1100.0 + n))) for n in range(BURST + 1)] == [1] * BURST + [0]


def test_suppressed_records_precede_the_next_record_of_their_logger() -> None:
    limit = RateLimit()
    for n in range(BURST + 3):
        limit.take(record("cannot connect", 1000.0 + n))
        limit.take(record("elsewhere", 1000.0 + n, name="cdc.other"))
    written = limit.take(record("streaming", 1010.0, level=logging.INFO))
    assert [one.getMessage() for one in written] == ["cannot connect", "streaming"]
    assert repeated(written) == [2, 0]
    assert limit.take(record("cannot connect", 1011.0)) == []
    assert len(limit.take(record("streaming", 1012.0, level=logging.INFO))) == 2


@pytest.mark.parametrize("seed", range(20))
def test_written_and_suppressed_records_add_up(seed: int) -> None:
    chance = random.Random(seed)
    limit, now, written, count = RateLimit(), 1000.0, list[logging.LogRecord](), 3000
    for _ in range(count):
        now += chance.choice([0, 0.001, 0.1, 7, 31, -20])
        kind = chance.choice("abcdefgh" if seed % 2 else NAMES)
        written += limit.take(record(f"sentence {kind}", now, name=chance.choice(["a", LIBRDKAFKA])))
        if chance.random() < 0.1:
            written += limit.due(now)
        assert len(limit._windows) <= KINDS
    written += limit.rest()
    assert len(written) + sum(repeated(written)) == count
    assert limit.rest() == []


def test_a_kind_is_logger_level_and_message() -> None:
    limit = RateLimit()
    for n in range(BURST):
        assert limit.take(record("lost %s", 1000.0, n))
    assert limit.take(record("lost %s", 1000.0, 1)) == []
    assert limit.take(record("lost %s", 1000.0, 1, level=logging.ERROR))
    assert limit.take(record("lost %s", 1000.0, 1, name="cdc.other"))
    assert limit.take(record("lost %d", 1000.0, 1))


def test_error_texts_that_differ_only_in_numbers_are_one_kind() -> None:
    limit = RateLimit()
    for n in range(BURST + 1):
        last = limit.take(record("%s", 1000.0, f"refused after {n} ms"))
    assert last == []
    assert limit.take(record("%s", 1000.0, "another error"))
    assert limit.take(record("%s; %s", 1000.0, "refused after 1 ms", "wait"))


def test_debug_and_critical_records_are_never_suppressed() -> None:
    limit = RateLimit()
    for level in (logging.DEBUG, logging.CRITICAL):
        assert all(limit.take(record("again", 1000.0, level=level)) for _ in range(BURST * 3))


def test_untrusted_text_does_not_fill_the_memory_and_no_count_is_lost() -> None:
    limit = RateLimit()
    for _ in range(BURST + 2):
        limit.take(record("first", 1000.0))
    written = [one for name in NAMES for one in limit.take(record(name, 1000.0))]
    (first,) = [one for one in written if one.getMessage() == "first"]
    assert repeated([first]) == [1]
    assert len(limit._windows) <= KINDS
    assert max(len(sentence) for _, _, sentence in limit._windows) <= 300


def test_a_clock_that_is_set_back_does_not_suppress_records() -> None:
    limit = RateLimit()
    for _ in range(BURST + 1):
        limit.take(record("again", 1_000_000.0))
    assert repeated(limit.take(record("again", 1000.0))) == [1]


FAILED = "FAIL [rdkafka#producer-1] [thrd:h:1/bootstrap]: h:1/bootstrap: Connect failed (after {} ms)"


def test_repeated_messages_of_librdkafka_are_written_once_in_thirty_seconds() -> None:
    limit = RateLimit()
    seen = [limit.take(record(FAILED.format(n), 1000.0 + n, name=LIBRDKAFKA)) for n in range(0, 65, 5)]
    assert [place for place, written in enumerate(seen) if written] == [0, 6, 12]
    assert repeated(seen[6]) == [5]


def test_messages_of_different_brokers_are_different_kinds() -> None:
    limit = RateLimit()
    for message in ("FAIL [x] [thrd:h:1]: f", "FAIL [x] [thrd:h:2]: f", "ERROR [x] [thrd:h:1]: f"):
        assert limit.take(record(message, 1000.0, name=LIBRDKAFKA))

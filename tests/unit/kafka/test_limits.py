"""How large records and batches may be."""

import pytest

from cdc.config.librdkafka import Value
from cdc.errors import KafkaUnavailable
from cdc.kafka.limits import Limits


def test_the_topic_decides_unless_the_client_takes_less_c7() -> None:
    assert Limits({}).learn("t", 2_000_000) == 2_000_000
    assert Limits({"message.max.bytes": 1_500_000}).learn("t", 2_000_000) == 1_500_000
    assert Limits({"message.max.bytes": 1_500_000}).learn("t", None) == 1_500_000


def test_a_record_larger_than_the_whole_queue_would_wait_for_ever_and_is_refused_c9() -> None:
    assert Limits({"queue.buffering.max.kbytes": 2000}).learn("t", 64_000_000) == 2_048_000
    assert Limits({}).learn("t", 64_000_000) == 32 * 1024 * 1024


@pytest.mark.parametrize("name", ["compression.type", "compression.codec"])
def test_what_is_compressed_only_the_broker_can_measure_c7(name: str) -> None:
    assert Limits({name: "zstd"}).learn("t", 1_100_000) == 32 * 1024 * 1024
    assert Limits({name: "none"}).learn("t", 1_100_000) == 1_100_000


def test_a_limit_below_the_batch_size_ends_the_session_once_and_makes_the_next_batches_fit_c7() -> None:
    limits = Limits({})
    assert limits.batch_bytes == 1_000_000
    with pytest.raises(KafkaUnavailable, match=r"topic 'small' accepts at most 1000 bytes at once"):
        limits.learn("small", 1000)
    assert limits.batch_bytes == 1000
    assert limits.learn("small", 1000) == 1000
    assert limits.learn("large", 2_000_000) == 2_000_000
    assert limits.batch_bytes == 1000


def test_the_users_own_smaller_batches_are_kept_c7() -> None:
    limits = Limits({"batch.size": 500})
    assert limits.learn("t", 1000) == 1000
    assert limits.batch_bytes == 500


def test_a_refusal_is_worth_another_try_once_for_each_limit_that_is_known_c7() -> None:
    limits = Limits({"compression.type": "zstd"})
    limits.learn("t", 2_000_000)
    assert [limits.may_have_changed("t"), limits.may_have_changed("t")] == [True, False]
    limits.learn("t", 2_000_000)
    assert not limits.may_have_changed("t")
    limits.learn("t", 1_500_000)
    assert [limits.may_have_changed("t"), limits.may_have_changed("t")] == [True, False]


@pytest.mark.parametrize("limit", [None, 2_000_000])
def test_a_refusal_that_can_teach_nothing_is_for_good_c7(limit: int | None) -> None:
    limits = Limits({})
    limits.learn("t", limit)
    assert [limits.may_have_changed("t") for _ in range(3)] == [limit is not None, False, False]
    assert not limits.may_have_changed("never looked up")


def test_a_limit_that_may_not_be_read_any_more_is_no_longer_relied_on_c7() -> None:
    limits = Limits({})
    limits.learn("t", 2_000_000)
    assert limits.may_have_changed("t")
    limits.learn("t", None)
    assert not limits.may_have_changed("t")


@pytest.mark.parametrize(
    "given", [{"batch.size": "1000"}, {"message.max.bytes": "1000000"}, {"queue.buffering.max.kbytes": "1000"}]
)
def test_properties_may_be_text_as_the_environment_gives_them(given: dict[str, Value]) -> None:
    assert Limits(given).learn("t", 500_000_000) <= 32 * 1024 * 1024

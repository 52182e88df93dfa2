"""What errors of librdkafka mean: again with a new producer, or not at all."""

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from cdc import errors
from cdc.kafka import client
from cdc.kafka import errors as failure


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError._INVALID_DIFFERENT_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
    ],
)
def test_what_the_same_record_would_meet_again_is_permanent_and_says_what_to_do_c6_c14_c20(code: int) -> None:
    problem = failure.kafka_error(KafkaError(code), "delivering")
    assert isinstance(problem, errors.KafkaError)
    assert problem.hint
    assert "Kafka, delivering: " in problem.message


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._FATAL,
        KafkaError._GAPLESS_GUARANTEE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._TIMED_OUT,
    ],
)
def test_what_a_new_producer_may_not_meet_again_is_temporary_c3_c12(code: int) -> None:
    assert isinstance(failure.kafka_error(KafkaError(code), "delivering"), errors.KafkaUnavailable)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> int:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        yield


def test_a_client_that_cannot_be_made_is_a_matter_of_settings_only_when_they_are_wrong_d9() -> None:
    wrong = failure.not_created(KafkaException(KafkaError(KafkaError._INVALID_ARG, "no such property")))
    assert isinstance(wrong, errors.ConfigError)
    threads = failure.not_created(KafkaException(KafkaError(KafkaError._CRIT_SYS_RESOURCE, "no thread")))
    assert isinstance(threads, errors.KafkaUnavailable)


@pytest.mark.usefixtures("no_files")
def test_a_certificate_that_cannot_be_opened_for_want_of_files_is_temporary_d9() -> None:
    problem = failure.not_created(KafkaException(KafkaError(KafkaError._INVALID_ARG, "ssl.ca.location failed")))
    assert isinstance(problem, errors.KafkaUnavailable)


def test_case_d10_a_property_that_takes_a_function_is_a_configuration_error() -> None:
    for create in (client.producer, client.consumer, client.admin_client):
        with pytest.raises(errors.ConfigError, match="stats_cb"):
            create({"stats_cb": "text", "group.id": "g"})


def test_case_d5_a_flush_is_made_of_short_calls_that_no_fatal_error_outlives() -> None:
    asked: list[float] = []

    class Slow:
        """A producer whose records are never delivered; its error comes with the third call."""

        def flush(self, seconds: float) -> int:
            asked.append(seconds)
            if len(asked) == 3:
                raise KafkaException(KafkaError(KafkaError._FATAL))
            return 1

    with pytest.raises(KafkaException):
        client.flush(Slow(), 3600.0)  # type: ignore[arg-type]
    assert len(asked) == 3
    assert max(asked) <= 0.2


def test_no_call_of_a_flush_is_shorter_than_librdkafka_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now = list[float](), 0.0
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: now))

    class Slow:
        """A producer that waits for whole milliseconds, and returns a little early."""

        def flush(self, seconds: float) -> int:
            nonlocal now
            asked.append(seconds)
            now += max(0.000_01, int(seconds * 1000) * 0.0009)
            return 1

    for seconds in (0.001, 0.003, 0.3):
        assert client.flush(Slow(), seconds) == 1  # type: ignore[arg-type]
    assert min(asked) >= 0.001, "others would make a loop that keeps a core busy"
    assert client.flush(Slow(), 0.0) == 1  # type: ignore[arg-type]
    assert asked[-1] == 0

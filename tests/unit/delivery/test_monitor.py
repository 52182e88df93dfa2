"""The monitor of a session: the progress line, and the warning when Kafka confirms nothing."""

import logging
from typing import Any

import pytest

from cdc.delivery.monitor import Monitor
from cdc.delivery.ports import Observation, Synchronous, WalEnd
from cdc.lsn import LSN
from cdc.telemetry.metrics import Metrics
from tests import memory
from tests.memory import NOON
from tests.unit.loop import Loop
from tests.unit.shop import event, transaction

STUCK = "Kafka has not confirmed the oldest transaction; reading continues when it does"


class Clock(memory.Clock):
    """Unix time that passes, too."""

    def unix(self) -> float:
        return NOON + self.now


class Eyes:
    """A sentinel that knows the end of the WAL, and what it is given."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def observe(self) -> list[Observation]:
        return [WalEnd(LSN(1_000)), *self.seen]


class World:
    """A loop that has read one transaction of two events, and its monitor."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.sentinel = Eyes()
        self.loop = Loop(transaction(200, event(), event()))
        self.monitor = Monitor(
            session=self.loop.session,
            publisher=self.loop.publisher,
            sentinel=self.sentinel,
            clock=self.clock,
            metrics=self.metrics,
            stream="0badcafe",
        )
        self.loop.steps(2)

    def passes(self, seconds: int) -> None:
        """Look four times a second."""
        for _ in range(4 * seconds):
            self.clock.now += 0.25
            self.monitor.look()


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [record.__dict__ for record in caplog.records if record.getMessage() == message]


def test_case_c8_status_updates_are_due_at_once_when_commits_wait_for_them() -> None:
    world = World()
    world.sentinel.seen.append(Synchronous())
    world.passes(1)
    status_updates = len(world.loop.source.written)
    world.loop.sink.settle_all()
    world.loop.steps(1)  # the clock stands still
    assert len(world.loop.source.written) == status_updates + 1


def test_progress_is_logged_every_ten_seconds_with_the_numbers_of_the_metrics(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.passes(21)
    first, second = lines(caplog, "progress")
    assert (first["events"], first["events_per_second"], second["events_per_second"]) == (2, 0.2, 0.0)
    assert first["lag_bytes"] == world.metrics.lag_bytes == 900
    assert second["lag_seconds"] - first["lag_seconds"] == pytest.approx(10.0)
    assert first["confirmed"] == "0/64"


def test_it_warns_when_kafka_has_confirmed_nothing_for_thirty_seconds(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.passes(29)
    assert lines(caplog, STUCK) == []
    world.passes(12)
    (warning,) = lines(caplog, STUCK)
    assert warning["commit_lsn"] == "0/C8"
    assert 30 <= warning["waiting_seconds"] <= 41


def test_deliveries_of_a_long_transaction_are_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.passes(29)
    world.loop.sink.settle()
    world.loop.steps(1)
    world.passes(12)
    assert lines(caplog, STUCK) == []

"""What the running publisher counts, what that means, and how it is told."""

from typing import Any

import pytest

from cdc.errors import (
    KafkaError,
    KafkaRefused,
    KafkaUnavailable,
    PostgresError,
    PostgresRefused,
    PostgresUnavailable,
    SlotLost,
)
from cdc.lsn import LSN
from cdc.records.record import Record
from cdc.replication.settlement import Ledger
from cdc.status.from_metrics import PublisherIdentity, describe
from cdc.telemetry.health import NOT_READY, State, alive, judge
from cdc.telemetry.metrics import (
    FAILED,
    HELD,
    STANDBY,
    STOPPED,
    STOPPING,
    STREAMING,
    WAITING,
    Histogram,
    Metrics,
    RelayHealth,
    Sample,
)
from tests.memory import NOON
from tests.unit.loop import Loop
from tests.unit.shop import event, transaction

IDENTITY = PublisherIdentity("0.1.0", 7, "shop", "shop_publication", "at-least-once", "python")
PAYLOAD = b"twelve bytes"


def record(topic: str, value: bytes | None = PAYLOAD) -> Record:
    return Record.to(topic, b"key", value, 0, [], lambda *_: None)


def served(metrics: Metrics) -> dict[str, Any]:
    """The JSON object of `/status`."""
    return describe(metrics, IDENTITY, NOON).served()


def streaming(**changes: Any) -> Metrics:
    """Of a publisher that streams well, but for the changes."""
    metrics = Metrics(NOON - 100)
    metrics.enter(STREAMING, NOON - 90)
    metrics.sessions = 1
    metrics.confirmed = metrics.received = metrics.wal_end = LSN(1000)
    for name, value in changes.items():
        setattr(metrics, name, value)
    return metrics


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, State.IDLE),
        ({"in_flight": 3, "oldest": NOON - 0.1}, State.STREAMING),
        ({"in_flight": 3, "oldest": NOON - 60}, State.CATCHING_UP),
        ({"wal_end": LSN(1000 + (64 << 20))}, State.CATCHING_UP),
        ({"relay": RelayHealth(3, 60.0, 0, 9, 6, 1)}, State.CATCHING_UP),
        ({"relay": RelayHealth(3, 1.0, 0, 9, 6, 1)}, State.IDLE),
        ({"relay": RelayHealth(0, None, 5, 9, 6, 1)}, State.IDLE),
        ({"in_flight": 3, "oldest": NOON - 60, "waiting_since": NOON - 6}, State.BLOCKED_BY_KAFKA),
        ({"waits_for": "kafka", "waiting_since": NOON - 6}, State.BLOCKED_BY_KAFKA),
        ({"waits_for": "registry", "waiting_since": NOON - 6}, State.BLOCKED_BY_REGISTRY),
        ({"waits_for": "registry", "waiting_since": NOON - 1}, State.IDLE),
        ({"silent_seconds": 13.0}, State.STALLED),
        ({"silent_seconds": 11.0}, State.IDLE),
        ({"silent_seconds": 4.0, "status_seconds": 1.0}, State.STALLED),
    ],
)
def test_the_state_of_a_stream_follows_from_its_progress_and_waits(changes: dict[str, Any], state: State) -> None:
    condition = judge(streaming(**changes), NOON)
    assert condition.state == state
    assert condition.ready is (state is not State.STALLED)


@pytest.mark.parametrize(
    ("error", "phase", "state"),
    [
        (KafkaUnavailable("no broker answers"), WAITING, State.BLOCKED_BY_KAFKA),
        (KafkaRefused("wrong password"), WAITING, State.BLOCKED_BY_KAFKA),
        (PostgresUnavailable("is starting up"), WAITING, State.BLOCKED_BY_POSTGRES),
        (PostgresRefused("wrong password"), WAITING, State.BLOCKED_BY_POSTGRES),
        (SlotLost("the slot is gone"), FAILED, State.SLOT_LOST),
        (PostgresError("the role may not"), FAILED, State.FAILED),
        (KafkaError("not authorized"), FAILED, State.FAILED),
    ],
)
def test_an_error_decides_the_state_and_its_message_is_the_reason(error: Any, phase: str, state: State) -> None:
    metrics = streaming()
    metrics.meet(error, phase, NOON)
    condition = judge(metrics, NOON)
    assert condition.state == state
    assert error.message in condition.summary
    assert condition.ready is (phase == WAITING)


def test_a_publisher_that_never_streamed_is_not_ready() -> None:
    metrics = Metrics()
    metrics.meet(KafkaUnavailable("no broker answers"), WAITING, NOON)
    assert judge(metrics, NOON) == (State.BLOCKED_BY_KAFKA, False, "blocked by Kafka: no broker answers")


def test_a_standby_is_ready_although_it_has_never_streamed() -> None:
    metrics = Metrics()
    metrics.enter(STANDBY, NOON)
    assert judge(metrics, NOON)[:2] == (State.STANDBY, True)


def test_a_slot_held_by_an_idle_reader_is_stalled_after_a_moment() -> None:
    metrics = Metrics()
    metrics.enter(HELD, NOON, "process 7 holds the slot")
    assert judge(metrics, NOON + 1).state == State.STANDBY
    assert judge(metrics, NOON + 6) == (State.STALLED, False, "stalled: process 7 holds the slot")


@pytest.mark.parametrize("phase", [STOPPING, STOPPED])
def test_one_that_ends_is_not_ready(phase: str) -> None:
    metrics = streaming()
    metrics.enter(phase, NOON)
    assert judge(metrics, NOON)[:2] == (State(phase), False)
    assert State(phase) in NOT_READY


def test_a_loop_blocked_for_a_minute_is_not_alive_and_a_failed_publisher_is() -> None:
    metrics = streaming(turned_monotonic=500.0)
    assert alive(metrics, 559.0)
    assert not alive(metrics, 561.0)
    metrics.enter(FAILED, NOON)
    assert alive(metrics, 561.0)


def test_a_large_transaction_of_which_events_are_delivered_is_no_blockade() -> None:
    # Its age grows, but something is confirmed at each look: `waiting_since` stays None.
    metrics = streaming(in_flight=900_000, oldest=NOON - 60, waiting_since=None)
    assert judge(metrics, NOON).state == State.CATCHING_UP


def test_events_and_bytes_are_counted_by_topic_without_the_publishers_own_records() -> None:
    metrics = Metrics(positions="cdc.positions")
    metrics.sent([record("a"), record("b"), record("a", None), record("cdc.positions")])
    metrics.sent([record("a")])
    metrics.sent([record("cdc.positions")])
    assert metrics.events == {"a": 3, "b": 1}
    assert metrics.bytes == {"a": 24, "b": 12}


def test_a_transaction_without_events_is_not_counted_as_delivered() -> None:
    metrics = Metrics(positions="cdc.positions")
    metrics.now = NOON
    ledger = Ledger(0, metrics.settled)
    for commit_lsn, events in ((100, 2), (200, 0)):
        opened = ledger.begin(LSN(commit_lsn), int((NOON - 0.25) * 1000))
        for _ in range(events):
            opened.add_event()
        ledger.commit(LSN(commit_lsn), LSN(commit_lsn + 8))
        for _ in range(events):
            opened.report(None, None)
    ledger.settle()
    assert (metrics.delivered, metrics.transactions, list(metrics.latencies)) == (2, 1, [0.25])


def test_a_value_on_the_bound_of_a_bucket_is_in_it() -> None:
    histogram = Histogram((0.1, 1))
    for value in (0.1, 0.2, 5):
        histogram.observe(value)
    histogram.observe(1, weight=3)
    assert histogram.counts == [1, 4, 1]
    assert histogram.sum == pytest.approx(8.3)


def test_the_document_has_rates_of_seconds_and_percentiles_of_transactions() -> None:
    metrics = streaming(in_flight=1, oldest=NOON - 0.5, delivered=400)
    for second in range(5):
        metrics.history.append(Sample(NOON - 4 + second, second * 100, second * 5000, second * 20, 8 * second, 0.001))
    metrics.latencies.extend(n / 1000 for n in range(1, 101))
    metrics.events.update({"orders": 400})
    metrics.bytes.update({"orders": 20_000})
    metrics.topics_before.append((NOON - 4, {"orders": 0}))
    told = served(metrics)
    assert told["rate"] == {"events_per_second": 100.0, "bytes_per_second": 5000.0, "transactions_per_second": 20.0}
    assert told["latency"] == {"count": 100, "p50_ms": 51.0, "p95_ms": 95.0, "p99_ms": 99.0, "max_ms": 100.0}
    assert told["topics"] == {"orders": {"events": 400, "bytes": 20_000, "events_per_second": 100.0}}
    assert told["in_flight"] == {"events": 1, "transactions": 0, "oldest_seconds": 0.5}
    assert told["history"]["events_per_second"] == [100.0] * 4
    assert told["history"]["lag_bytes"] == [8, 16, 24, 32]
    assert (told["state"], told["ready"], told["slot"]["confirmed"]) == ("streaming", True, "0/3E8")


def test_unknown_values_are_null_in_the_document() -> None:
    told = served(Metrics(NOON))
    assert (told["state"], told["ready"]) == ("starting", False)
    assert told["lag"] == {"bytes": None, "seconds": 0.0, "events": 0}
    assert (
        told["slot"]["confirmed"] is told["slot"]["wal_end"] is told["latency"]["p50_ms"] is told["last_error"] is None
    )


def test_nothing_is_behind_right_after_the_only_event_was_delivered_e5() -> None:
    metrics = streaming(delivered=1, transactions=1, read=1)
    metrics.latencies.append(1.2)
    metrics.history.append(Sample(NOON - 0.5, 0, 0, 0, 0, None))
    document = served(metrics)
    assert document["lag"] == {"bytes": 0, "seconds": 0.0, "events": 0}
    assert document["state"] == "streaming"


def test_lag_is_the_age_of_the_oldest_unsettled_transaction() -> None:
    assert served(streaming(in_flight=3, oldest=NOON - 1.5))["lag"]["seconds"] == 1.5
    assert served(streaming(in_flight=3, oldest=NOON + 60))["lag"]["seconds"] == 0.0  # PostgreSQL's clock is ahead


def test_events_that_are_not_read_yet_are_estimated_by_the_wal_that_others_took() -> None:
    changes = {"began": LSN(10_000), "received": LSN(30_000), "wal_end": LSN(40_000), "read": 200, "in_flight": 7}
    assert served(streaming(**changes))["lag"]["events"] == 107


def test_no_secret_of_an_error_is_kept() -> None:
    metrics = Metrics(scrub=lambda text: text.replace("hunter2", "***"))
    metrics.meet(PostgresUnavailable("no connection with hunter2"), WAITING, NOON)
    assert "hunter2" not in str(served(metrics))


def test_the_loop_counts_sent_records_and_settled_transactions() -> None:
    metrics = Metrics(positions="cdc.positions")
    loop = Loop(transaction(200, event(), event()), metrics=metrics)
    loop.steps(2)
    assert metrics.events == {"outbox.event.order": 2}
    assert sum(metrics.encode.counts) == 2
    assert metrics.delivered == 0
    loop.sink.settle()
    loop.sink.settle()
    loop.steps(2)
    assert metrics.delivered == 2


def test_an_odd_clock_or_a_long_error_does_not_prevent_the_document() -> None:
    metrics = streaming(started=NOON + 60, confirmed_since=NOON + 60, safe=-1)
    metrics.meet(KafkaUnavailable("x" * 20_000), WAITING, NOON)
    document = served(metrics)
    assert document["publisher"]["uptime_seconds"] == -60.0
    assert len(document["last_error"]["message"]) == 20_000

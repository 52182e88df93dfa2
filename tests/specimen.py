"""Metrics as a publisher at work has them, without one."""

import time
from collections.abc import Mapping
from typing import Final

from cdc.http.fleet import FleetApplication
from cdc.lsn import LSN
from cdc.status.fleet import FleetDocument, UnitState, UnitStatus
from cdc.status.from_metrics import PublisherIdentity, describe
from cdc.telemetry.metrics import STREAMING, Metrics, RelayHealth, Sample, Trouble

IDENTITY: Final = PublisherIdentity("0.1.0", 7, "cdc_publisher", "outbox", "at-least-once", "python")
HOSTILE: Final = "<img src=x onerror=document.title='taken'>"


def metrics(now: float | None = None) -> Metrics:
    """Of a publisher that has streamed for five minutes, 100 events a second."""
    now = now or time.time()
    told = Metrics()
    told.started, told.sessions, told.stream = now - 310, 1, "0badcafe"
    told.enter(STREAMING, now - 300)
    told.turned_monotonic = time.monotonic()
    told.confirmed, told.confirmed_since, told.wal_end, told.received = LSN(5000), now - 0.5, LSN(7000), LSN(6000)
    told.retained, told.limit, told.safe, told.wal_status = 2_097_152, 10_485_760, 8_388_608, "reserved"
    told.read, told.delivered, told.transactions = 30_010, 30_000, 10_000
    told.events.update({"outbox.event.order": 30_000, HOSTILE: 10})
    told.bytes.update({"outbox.event.order": 3_000_000, HOSTILE: 1_000})
    told.in_flight, told.in_flight_transactions = 10, 4  # without the oldest's age: it would fall behind in a slow test
    for seconds in (0.002, 0.003, 0.02):
        told.latencies.append(seconds)
        told.delivery.observe(seconds)
    told.encode.observe(2e-6, 30_000)
    told.last_dead_letter = now - 250
    told.recovered = 3, 5
    told.other_messages = {"heartbeat": 7}
    told.trouble = Trouble("KafkaUnavailable", "no broker answers", now - 200)
    for second in range(300):
        told.history.append(Sample(now - 299 + second, 100 * (second + 1), 100 * second, 30 * second, 2000, 0.003))
    return told


def polling(now: float | None = None) -> Metrics:
    """Of one whose rows come from queries of the table: it has no WAL."""
    told = metrics(now)
    told.wal_end = told.retained = told.limit = told.safe = told.wal_status = None
    told.relay = RelayHealth(unbatched=4, oldest_seconds=1.0, strays=2, numbers=90, batched=70, open_ticks=3)
    told.ticks, told.batch_rows, told.batch_seconds = 12, 25, 0.5
    return told


TROUBLED: Final = {
    "lost": UnitStatus(
        partition=4,
        state=UnitState.FAILED,
        summary="replication slot 'lost' does not exist; if it was dropped, run: cdc-publisher recover",
        restarts=3,
    ),
    "away": UnitStatus(partition=5, state=UnitState.WAITING, summary="blocked by PostgreSQL: connection refused"),
    "spare": UnitStatus(partition=6, state=UnitState.STANDBY, summary="the slot is read by process 4711"),
    "gone": UnitStatus(partition=7, state=UnitState.NO_FILE, summary="put it into the folder of every instance"),
}
"""Units in each state that a person has to see, and a standby."""


def fleet(*, ready: bool = True, more: Mapping[str, UnitStatus] | None = None) -> FleetApplication:
    """An instance of a fleet that runs two units and knows two that are elsewhere, and `more`."""
    measured = {unit: metrics() for unit in ("shop", "cart")}
    units = {
        unit: UnitStatus(
            partition=number,
            state=UnitState.WORKING,
            summary="streaming",
            pid=70 + number,
            status=describe(one, IDENTITY, time.time(), past=False),
        )
        for number, (unit, one) in enumerate(measured.items(), 1)
    }
    units["zoo"] = UnitStatus(partition=3, state=UnitState.ELSEWHERE)
    units["new"] = UnitStatus(state=UnitState.UNREGISTERED, summary=HOSTILE)
    units |= more or {}
    failed = [(name, one) for name, one in units.items() if one.state == UnitState.FAILED]
    document = FleetDocument(
        version="0.1.0",
        time="2026-01-31T08:00:00Z",
        fleet="default",
        instance="here-7",
        pid=7,
        ready=ready,
        joined=True,
        summary="2 units of 4 here" if ready else "not ready: a reason",
        problems=[*([] if ready else ["a reason"]), *(f"unit {name}: {one.summary}" for name, one in failed)],
        units=units,
    )
    return FleetApplication(lambda: (document, {unit: one.figures for unit, one in measured.items()}), lambda: ready)

"""Every kind of fault: how often it comes, what it keeps to itself, and how it is done and undone.

A fault's function returns when the fault is healed. Rates are per minute; `holds` names what no two faults may torment
at the same time.
"""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import psutil
import psycopg

from cdc.local.kafka import KafkaBroker
from tests.torture import compaction, network
from tests.torture.crew import Publisher
from tests.torture.stage import Stage, wait_until

Act = Callable[[Stage, random.Random], None]
LONGER_THAN_TIMEOUTS: Final = 7.5  # seconds, of the proxied connections
LONG: Final = 180.0  # seconds; of a busy machine


SWAP: Final = (
    "alter table outbox rename aggregateid to swapped; alter table outbox rename spare to aggregateid;"
    " alter table outbox rename swapped to spare"
)
"""Two columns of the same type swap their names: their cells look as before, and mean something else."""
RETYPES: Final = (
    "alter table outbox alter payload type json using payload::json",
    "alter table outbox alter payload type jsonb using payload::jsonb",
    "alter table outbox alter type type text",
    "alter table outbox alter type type varchar(200)",
    "alter table outbox add extra int not null default 1",
    "alter table outbox drop if exists extra",
)
"""Changes of the table that leave every event what it is."""


class Fault(NamedTuple):
    """One kind of fault."""

    name: str
    group: str
    per_minute: float
    holds: str
    act: Act
    guarantee: str = ""  # the only one in which it means anything
    source: str = ""  # likewise


def _kill(stage: Stage, _: random.Random) -> None:
    publisher = stage.crew.first()
    stage.before("kill")
    publisher.kill()


def _terminate(stage: Stage, _: random.Random) -> None:
    publisher = stage.crew.first()
    publisher.signal(signal.SIGTERM)
    if not wait_until(lambda: not publisher.runs, 60):
        stage.crew.refusals.append(f"publisher {publisher.process.pid} did not end within 60 s of SIGTERM")
        publisher.kill()


def _freeze(shortest: float, longest: float) -> Act:
    def act(stage: Stage, chance: random.Random) -> None:
        publisher = stage.crew.first()
        publisher.freeze()
        time.sleep(chance.uniform(shortest, longest))
        publisher.thaw()

    return act


def _freeze_long(stage: Stage, chance: random.Random) -> None:
    shortest = stage.source.silent_seconds
    _freeze(shortest, shortest + 2.5)(stage, chance)


def _take_over(stage: Stage, chance: random.Random) -> None:
    """A standby joins; the first dies, or freezes for so long that it is a zombie when it wakes."""
    stage.crew.want(2)
    time.sleep(chance.uniform(1.0, 2.5))
    publisher = stage.crew.first()
    if chance.random() < 0.5:
        publisher.freeze()
        time.sleep(stage.source.silent_seconds + chance.uniform(0, 1.5))
        publisher.thaw()
        time.sleep(chance.uniform(0, 1))
    stage.crew.want(1)
    for publisher in stage.crew.publishers[:-1]:
        publisher.kill()


def _revive(stage: Stage, chance: random.Random) -> None:
    """The one that publishes freezes until the standby has taken over, and wakes up: from then on it has to wait."""
    crew = stage.crew
    crew.want(2)
    try:
        active, standby = _both(stage)
        begun = len(standby.states())
        active.freeze()
        taken_over = wait_until(lambda: "streaming" in standby.states()[begun:], LONG)
        time.sleep(chance.uniform(0, 1))
        known = len(active.states())
        active.thaw()
        assert taken_over, "the standby did not take over"
        # It may also win the slot back when the other loses it; if it ends, the crew judges by its exit code.
        if not wait_until(lambda: len(active.states()) > known or not active.runs, LONG):
            crew.refusals.append(f"publisher {active.process.pid} woke up and neither waited nor ended in {LONG:g} s")
        time.sleep(chance.uniform(0, 2))
    finally:
        crew.want(1)
        for publisher in crew.publishers[: len(crew.publishers) - 1]:
            publisher.kill()


def _both(stage: Stage) -> tuple[Publisher, Publisher]:
    """The publisher that streams, and the one that waits for it."""
    found: dict[str, Publisher] = {}

    def are_there() -> bool:
        found.clear()
        for publisher in list(stage.crew.publishers):
            if publisher.runs and not publisher.frozen and (states := publisher.states()):
                found[states[-1]] = publisher
        return len(found) == 2

    assert wait_until(are_there, LONG), f"no two publishers but {sorted(found)}"
    return found["streaming"], found["standby"]


def _postgres_immediate(stage: Stage, chance: random.Random) -> None:
    stage.before("crash")
    stage.postgres.stop("immediate")
    _pause(chance)
    stage.start(stage.postgres)


def _postgres_kill(stage: Stage, chance: random.Random) -> None:
    stage.before("crash")
    stage.postgres.kill()
    _pause(chance)
    stage.start(stage.postgres)


def _postgres_fast(stage: Stage, chance: random.Random) -> None:
    stage.postgres.stop("fast")
    _pause(chance)
    stage.start(stage.postgres)


def _pause(chance: random.Random) -> None:
    """Usually no pause at all: the server is back within a second."""
    time.sleep(chance.choice((0, 0, 0, 0.5, 2.0)))


def _retype(changes: Sequence[str]) -> Act:
    def act(stage: Stage, chance: random.Random) -> None:
        """Change columns while rows of the table before are under way; give up where a writer holds the table."""
        with contextlib.suppress(psycopg.Error):
            stage.sql(f"set lock_timeout = '1s'; {chance.choice(changes)}")

    return act


def _lock_rows(stage: Stage, chance: random.Random) -> None:
    """Lock rows that may be confirmed meanwhile."""
    with psycopg.connect(stage.postgres.dsn, connect_timeout=5) as connection:
        connection.execute("select from outbox where random() < 0.5 limit 50 for update skip locked")
        time.sleep(chance.uniform(0.5, 5))
        connection.rollback()


def _compact(stage: Stage, chance: random.Random) -> None:
    """End the publisher, and compact what it has sent before the next one reads back."""
    stage.crew.want(0)
    try:
        chance.choice((_kill, _kill, _terminate))(stage, chance)
        compaction.compact(stage)
    finally:
        stage.crew.want(1)


def _backend_terminate(stage: Stage, chance: random.Random) -> None:
    if pids := stage.source.backends():
        stage.sql("select pg_terminate_backend(%s)", chance.choice(pids))


def _backend_freeze(stage: Stage, chance: random.Random) -> None:
    if pids := stage.source.backends():
        backend = psutil.Process(chance.choice(pids))
        backend.suspend()
        time.sleep(chance.choice((0.5, 1.5, LONGER_THAN_TIMEOUTS)))
        if backend.is_running():
            backend.resume()


def _some_broker(stage: Stage, chance: random.Random) -> KafkaBroker:
    return chance.choice(stage.brokers)


def _broker_kill(stage: Stage, chance: random.Random) -> None:
    broker = _some_broker(stage, chance)
    broker.kill()
    time.sleep(chance.uniform(0, 1.5))
    stage.start(broker)


def _broker_restart(stage: Stage, chance: random.Random) -> None:
    broker = _some_broker(stage, chance)
    broker.stop()
    stage.start(broker)


def _broker_freeze(stage: Stage, chance: random.Random) -> None:
    broker = _some_broker(stage, chance)
    broker.freeze()
    time.sleep(chance.choice((1, 3, 9)))  # the controller gives one up after 6
    broker.thaw()


def _two_brokers(stage: Stage, chance: random.Random) -> None:
    """Below min.insync.replicas, and without a quorum of controllers."""
    one, two = chance.sample(stage.brokers, 2)
    one.freeze()
    two.kill()
    time.sleep(chance.uniform(0.5, 2))
    one.thaw()
    stage.start(two)


def _full_wal(stage: Stage, _: random.Random) -> None:
    """PostgreSQL panics when it finds no room for its next segment."""
    full = stage.full_disks["wal"]
    full.fill()
    wait_until(lambda: _has_panicked(stage), 6)
    full.drain()
    stage.before("crash")
    stage.postgres.stop("immediate")
    stage.start(stage.postgres)


def _has_panicked(stage: Stage) -> bool:
    try:
        stage.sql("select pg_switch_wal()")
    except psycopg.OperationalError:
        return True
    return False


def _full_broker(stage: Stage, _: random.Random) -> None:
    """A broker halts when its only log folder takes nothing more."""
    full, broker = stage.full_disks["kafka"], stage.brokers[-1]
    full.fill()
    wait_until(lambda: broker.process is None, 6)
    full.drain()
    broker.kill()
    stage.start(broker)


FAULTS: Final = (
    Fault("publisher-kill", "publisher", 4.9, "publisher", _kill),
    Fault("publisher-term", "publisher", 0.5, "publisher", _terminate),
    Fault("publisher-freeze", "publisher", 0.4, "publisher", _freeze(0.2, 1.5)),
    Fault("publisher-freeze-long", "publisher", 0.15, "publisher", _freeze_long),
    Fault("publisher-takeover", "publisher", 0.35, "publisher", _take_over),
    Fault("publisher-revive", "publisher", 0.2, "publisher", _revive),
    Fault("postgres-immediate", "postgres", 0.4, "postgres", _postgres_immediate),
    Fault("postgres-kill", "postgres", 0.4, "postgres", _postgres_kill),
    Fault("postgres-fast", "postgres", 0.35, "postgres", _postgres_fast),
    Fault("table-retype", "table", 2.5, "table", _retype(RETYPES)),
    Fault("table-swap", "table", 0.5, "table", _retype([SWAP]), source="slot"),
    Fault("table-lock", "table", 1.0, "postgres", _lock_rows, source="polling"),
    Fault("topic-compact", "topic", 0.6, "publisher", _compact),
    Fault("backend-terminate", "backend", 0.3, "postgres", _backend_terminate),
    Fault("backend-freeze", "backend", 0.2, "postgres", _backend_freeze),
    Fault("broker-kill", "broker", 0.45, "broker", _broker_kill),
    Fault("broker-freeze", "broker", 0.4, "broker", _broker_freeze),
    Fault("broker-restart", "broker", 0.2, "broker", _broker_restart),
    Fault("broker-two", "broker", 0.12, "broker", _two_brokers),
    *(Fault(name, "network", rate, name.partition("-")[0], act) for name, (rate, act) in network.FAULTS.items()),
    *(Fault(name, "network", rate, "pg", act, source="slot") for name, (rate, act) in network.OF_STREAMS.items()),
    Fault("kafka-commit", "network", 1.0, "kafka", network.hold_commits, "exactly-once"),
    Fault("disk-wal", "disk", 0.06, "postgres", _full_wal),
    Fault("disk-kafka", "disk", 0.06, "broker", _full_broker),
)
NAMES: Final = tuple(fault.name for fault in FAULTS)

"""`python -m tests.torture.fleet`: instances of a fleet under load and real faults; exit code 1 on any violation.

Units lie in several databases of one server. Writers insert into all of them, while instances are killed, frozen,
stopped, added, their children killed, the topic of the fleet deleted and the brokers frozen or restarted. At the end
each committed row must be in its topic, in order per key; in exactly-once mode once. How long units were without a
reader is measured from outside, by `pg_replication_slots`.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil
import psycopg

from cdc.local.stack import Stack
from tests.fleets import SESSION, FleetWorld, Started
from tests.servers import a_database

KEYS: Final = 8
LEAST, MOST = 2, 4
"""Instances at a time."""


class Campaign:
    """One run: servers, fleet, load, faults."""

    def __init__(self, given: argparse.Namespace, stack: Stack, world: FleetWorld) -> None:
        self.random = random.Random(given.seed)
        self.world = world
        self.stack = stack
        self.faults = 0
        self.kinds: Counter[str] = Counter()
        self.stopped = threading.Event()
        self.written = Counter[str]()
        self.gaps: list[tuple[float, str, str]] = []  # seconds, slot, last fault before
        self.last = ""
        self.wrong: list[str] = []
        self.running: list[Started] = []

    def join(self) -> None:
        """Start an instance."""
        self.running.append(self.world.start())

    # Load, and what is seen from outside.

    def write(self, dsn: str, units: list[str]) -> None:
        """Insert rows of increasing numbers, in transactions of a few rows, until stopped."""
        choose, numbers = random.Random(dsn), Counter[tuple[str, str]]()
        with psycopg.connect(dsn) as connection:
            while not self.stopped.wait(0.02):
                for _ in range(choose.randint(1, 5)):
                    unit, key = choose.choice(units), f"k{choose.randrange(KEYS)}"
                    numbers[unit, key] += 1
                    connection.execute(
                        f"insert into {unit} (aggregatetype, aggregateid, type, payload)"
                        " values ('note', %s, 'Noted', jsonb_build_object('seq', %s::int8))".encode(),
                        [key, numbers[unit, key]],
                    )
                    self.written[unit] += 1
                connection.commit()

    def watch(self, prefix: str) -> None:
        """Measure how long each slot has no reader."""
        since: dict[str, tuple[float, str]] = {}
        with psycopg.connect(self.world.dsn, autocommit=True) as connection:
            slots = "select slot_name, active from pg_replication_slots where starts_with(slot_name, %s)"
            while not self.stopped.wait(0.1):
                now = time.monotonic()
                for slot, active in connection.execute(slots, [prefix]).fetchall():
                    if not active:
                        since.setdefault(slot, (now, self.last))
                    elif slot in since:
                        began, fault = since.pop(slot)
                        self.gaps.append((now - began, slot, fault))

    # Faults.

    def alive(self) -> list[Started]:
        """The instances that run."""
        self.running = [one for one in self.running if one.process.poll() is None]
        return self.running

    def kill(self) -> None:
        """SIGKILL for an instance; another one follows."""
        self.random.choice(self.alive()).kill()
        self.join()

    def leave(self) -> None:
        """SIGTERM for an instance; another one follows."""
        self.stop_one()
        self.join()

    def stop_one(self) -> None:
        """SIGTERM for an instance that has begun; before that it ends as any program does."""
        instance = self.random.choice(self.alive()).logs("listening")
        code = instance.stop()
        if code != 0:
            self.wrong.append(f"an instance ended with {code}")

    def grow(self) -> None:
        """Add an instance, or stop one."""
        if len(self.alive()) < MOST:
            self.join()
        else:
            self.stop_one()

    def freeze(self) -> None:
        """SIGSTOP for an instance, longer than its session or not; its children go on."""
        instance = self.random.choice(self.alive())
        instance.signal(signal.SIGSTOP)
        time.sleep(self.random.choice((2, SESSION + 4)))
        instance.signal(signal.SIGCONT)

    def freeze_all(self) -> None:
        """SIGSTOP for an instance and its children."""
        instance = self.random.choice(self.alive())
        processes = [psutil.Process(instance.process.pid), *psutil.Process(instance.process.pid).children(True)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            if number == signal.SIGSTOP:
                time.sleep(self.random.choice((2, SESSION + 4)))

    def kill_child(self) -> None:
        """SIGKILL for a publisher, or for the process that they are forked from."""
        instance = self.random.choice(self.alive())
        children = psutil.Process(instance.process.pid).children(True)
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(children).pid, signal.SIGKILL)

    def delete_topic(self) -> None:
        """Delete the topic of the fleet."""
        with contextlib.suppress(Exception):  # it may have been deleted a moment ago
            self.world.delete_topic()

    def freeze_broker(self) -> None:
        """SIGSTOP for the broker."""
        (broker,) = self.stack.brokers
        broker.freeze()
        time.sleep(self.random.choice((2, SESSION + 4)))
        broker.thaw()

    def restart_broker(self) -> None:
        """Stop the broker, and start it again."""
        (broker,) = self.stack.brokers
        broker.stop()
        broker.start()

    def torment(self, number: int) -> None:
        """Inject faults, with pauses in which the fleet may or may not settle."""
        faults: list[Callable[[], None]] = [
            *(self.kill, self.leave, self.grow, self.freeze, self.freeze_all, self.kill_child) * 3,
            self.delete_topic,
            self.freeze_broker,
            self.restart_broker,
        ]
        while self.faults < number:
            while len(self.alive()) < LEAST:
                self.join()
            fault = self.random.choice(faults)
            self.faults += 1
            self.kinds[fault.__name__] += 1
            self.last = f"{self.faults} {fault.__name__}"
            print(f"{self.last} of {number}", flush=True)
            fault()
            time.sleep(self.random.choice((0.5, 3, 10)))

    def judge(self, *, once: bool) -> None:
        """Compare tables and topics."""
        for unit in self.world.dsns:
            with psycopg.connect(self.world.dsns[unit]) as connection:
                rows = connection.execute(f"select id::text, aggregateid, payload from {unit}".encode()).fetchall()
            records = self.world.records(unit)
            times = Counter(record.id for record in records)
            lost, phantoms = {row[0] for row in rows} - times.keys(), times.keys() - {row[0] for row in rows}
            again = sum(times.values()) - len(times)
            seen: dict[str, int] = {}
            backwards, ids = 0, set[str]()
            for record in records:
                if record.id not in ids:
                    ids.add(record.id)
                    backwards += record.value["seq"] <= seen.get(record.key, 0)
                    seen[record.key] = max(record.value["seq"], seen.get(record.key, 0))
            print(f"{unit}: {len(rows)} rows, {len(lost)} lost, {again} again, {backwards} out of order", flush=True)
            if lost or phantoms or backwards or (once and again):
                self.wrong.append(
                    f"{unit}: {len(lost)} lost, {len(phantoms)} invented, {again} again, {backwards} out of order"
                )


@contextlib.contextmanager
def _databases(server: str, number: int) -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(a_database(server)) for _ in range(number)]


def main() -> int:
    """Run one campaign; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.fleet", description=__doc__)
    parser.add_argument("--units", type=int, default=12)
    parser.add_argument("--databases", type=int, default=3)
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--guarantee", choices=("at-least-once", "exactly-once"), default="exactly-once")
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.guarantee}", flush=True)
    home = Path(tempfile.mkdtemp(prefix="cdc-fleet-"))
    home.chmod(0o755)
    (home / "fleet").mkdir()
    stack = Stack(home / "stack")
    try:
        addresses = stack.up()
        with _databases(addresses.postgres, given.databases) as dsns:
            world = FleetWorld(dsns[0], addresses.kafka, "torture-", home / "fleet")
            campaign = Campaign(given, stack, world)
            world.settings = f'[delivery]\nguarantee = "{given.guarantee}"\n'
            try:
                return _run(given, campaign, dsns)
            finally:
                campaign.stopped.set()
                world.close()
    finally:
        stack.down(purge=True)
        shutil.rmtree(home, ignore_errors=True)


def _run(given: argparse.Namespace, campaign: Campaign, dsns: list[str]) -> int:
    world = campaign.world
    units: dict[str, list[str]] = {dsn: [] for dsn in dsns}
    for number in range(given.units):
        dsn, unit = dsns[number % len(dsns)], f"unit_{number:02}"
        world.add(unit, dsn)
        units[dsn].append(unit)
    for _ in range(given.instances):
        campaign.join()
    writers = [threading.Thread(target=campaign.write, args=(dsn, names)) for dsn, names in units.items()]
    for instance in campaign.running:
        instance.becomes_ready()
    watcher = threading.Thread(target=campaign.watch, args=(world.name.replace("-", "_"),))
    for thread in (*writers, watcher):
        thread.start()
    began = time.monotonic()
    campaign.torment(given.faults)
    time.sleep(5)
    campaign.stopped.set()
    for thread in (*writers, watcher):
        thread.join()
    for unit in world.dsns:
        world.settles(unit, 180)
    campaign.judge(once=given.guarantee == "exactly-once")
    gaps = [seconds for seconds, *_ in campaign.gaps] or [0.0]
    summary = {
        "seed": given.seed,
        "guarantee": given.guarantee,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "faults": dict(campaign.kinds),
        "rows": sum(campaign.written.values()),
        "takeovers": len(campaign.gaps),
        "without_reader_median_seconds": round(statistics.median(gaps), 2),
        "without_reader_worst_seconds": round(max(gaps), 2),
        "longest": [f"{seconds:.1f} s: {slot}, after {fault}" for seconds, slot, fault in sorted(campaign.gaps)[-5:]],
        "wrong": campaign.wrong,
    }
    print(json.dumps(summary, indent=2))
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.torture.fleet`: instances of a fleet under load and real faults; exit code 1 on any violation.

Units lie in several databases of one server; some of them are the parts of one outbox. Writers insert into all of
them, while instances are killed, frozen, stopped, added, their children killed, the topic of the fleet deleted and the
broker frozen or restarted. At the end each committed row must be in its topic, in order per key; in exactly-once mode
once. PostgreSQL's views show that no slot ever had two readers, and how long takeovers took.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
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
from psycopg.conninfo import conninfo_to_dict

from cdc.local.stack import Stack
from tests.fleets import SESSION, FleetWorld, Started
from tests.servers import a_database
from tests.torture.takeovers import Watch

KEYS: Final = 8
LEAST, MOST = 2, 4
"""Instances at a time."""
PARTED: Final = "parted"
WAL_SENDER_SECONDS: Final = 10
"""`wal_sender_timeout`: PostgreSQL ends the connection of a frozen reader after that; 60 by default."""
KINDS: Final = {
    "kill": "instance killed",
    "leave": "instance stopped",
    "freeze_all": "instance frozen with its units",
    "kill_child": "unit killed",
}
"""Of faults that hit readers."""


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
        self.outboxes: dict[str, str] = {}  # DSNs
        self.wrong: list[str] = []
        self.running: list[Started] = []
        self.watch = Watch(world.dsn, ())

    def prepare(self, dsns: list[str], units: int, parts: int) -> None:
        """Make outboxes, with a unit each, and one outbox in parts."""
        for dsn in dsns:
            with psycopg.connect(dsn, autocommit=True) as connection:
                name = conninfo_to_dict(dsn)["dbname"]
                connection.execute(f"alter database {name} set wal_sender_timeout = '{WAL_SENDER_SECONDS}s'".encode())
        for number in range(units):
            unit, dsn = f"unit_{number:02}", dsns[number % len(dsns)]
            self.world.add(unit, dsn)
            self.outboxes[unit] = dsn
        self.world.split(PARTED, parts, dsns[-1])
        self.outboxes[PARTED] = dsns[-1]
        self.watch = Watch(self.world.dsn, map(self.world.slot, self.world.dsns))

    def join(self) -> None:
        """Start an instance."""
        self.running.append(self.world.start())

    # Load.

    def write(self, dsn: str) -> None:
        """Insert rows of increasing numbers, in transactions of a few rows, until stopped."""
        outboxes = [outbox for outbox, its in self.outboxes.items() if its == dsn]
        choose, numbers = random.Random(dsn), Counter[tuple[str, str]]()
        with psycopg.connect(dsn) as connection:
            while not self.stopped.wait(0.02):
                for _ in range(choose.randint(1, 5)):
                    outbox, key = choose.choice(outboxes), f"k{choose.randrange(KEYS)}"
                    numbers[outbox, key] += 1
                    connection.execute(
                        f"insert into {outbox} (aggregatetype, aggregateid, type, payload)"
                        " values ('note', %s, 'Noted', jsonb_build_object('seq', %s::int8))".encode(),
                        [key, numbers[outbox, key]],
                    )
                    self.written[outbox] += 1
                connection.commit()

    def guarded(self, work: Callable[[], None]) -> threading.Thread:
        """Return a thread whose failure is one of the campaign."""

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.wrong.append(f"the campaign itself: {error!r}")

        return threading.Thread(target=run)

    # Faults.

    def alive(self) -> list[Started]:
        """The instances that run."""
        self.running = [one for one in self.running if one.process.poll() is None]
        return self.running

    def kill(self) -> None:
        """SIGKILL for an instance; another one follows."""
        instance = self.random.choice(self.alive())
        self.watch.expect(KINDS["kill"], self.watch.of(children(instance)))
        instance.kill()
        self.join()

    def leave(self) -> None:
        """SIGTERM for an instance; another one follows."""
        self.stop_one()
        self.join()

    def stop_one(self) -> None:
        """SIGTERM for an instance that has begun; before that it ends as any program does."""
        instance = self.random.choice(self.alive())
        instance.logs("listening")
        self.watch.expect(KINDS["leave"], self.watch.of(children(instance)))
        code = instance.stop()
        if code != 0:
            self.wrong.append(f"an instance ended with {code} after fault {self.watch.last}")

    def grow(self) -> None:
        """Add an instance, or remove one."""
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
        """SIGSTOP for an instance and its children, so long that PostgreSQL gives them up, or not."""
        instance = self.random.choice(self.alive())
        units = children(instance)
        slots = self.watch.of(units)
        self.watch.expect(KINDS["freeze_all"], slots)
        processes = [psutil.Process(instance.process.pid), *units]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            if number == signal.SIGSTOP:
                time.sleep(self.random.choice((2, 2 * WAL_SENDER_SECONDS)))
        self.watch.spare(slots)

    def kill_child(self) -> None:
        """SIGKILL for a publisher, or for the process that they are forked from."""
        units = children(self.random.choice(self.alive()))
        if units:
            victim = self.random.choice(units)
            self.watch.expect(KINDS["kill_child"], self.watch.of([victim]))
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)

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

    def deck(self) -> Iterator[Callable[[], None]]:
        """Yield faults; among twenty in a row each kind occurs."""
        while True:
            faults: list[Callable[[], None]] = [
                *(self.kill, self.leave, self.grow, self.freeze, self.freeze_all) * 3,
                *(self.kill_child,) * 2,
                self.delete_topic,
                self.freeze_broker,
                self.restart_broker,
            ]
            self.random.shuffle(faults)
            yield from faults

    def torment(self, number: int) -> None:
        """Inject faults, with pauses in which the fleet may or may not settle."""
        for fault in self.deck():
            if self.faults == number:
                return
            while len(self.alive()) < LEAST:
                self.join()
            self.faults += 1
            self.kinds[fault.__name__] += 1
            self.watch.last = f"{self.faults} {fault.__name__}"
            print(f"{self.watch.last} of {number}", flush=True)
            fault()
            time.sleep(self.random.choice((0.5, 3, 10)))

    def judge(self, *, once: bool) -> None:
        """Compare tables and topics."""
        for outbox, dsn in self.outboxes.items():
            with psycopg.connect(dsn) as connection:
                rows = connection.execute(f"select id::text, aggregateid, payload from {outbox}".encode()).fetchall()
            records = self.world.records(outbox)
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
            found = f"{len(lost)} lost, {len(phantoms)} invented, {again} again, {backwards} out of order"
            print(f"{outbox}: {len(rows)} rows, {found}", flush=True)
            if not rows or lost or phantoms or backwards or (once and again):
                self.wrong.append(f"{outbox}: {len(rows)} rows, {found}")


def children(instance: Started) -> list[psutil.Process]:
    """The processes below an instance."""
    try:
        return psutil.Process(instance.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextlib.contextmanager
def _databases(server: str, number: int) -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(a_database(server)) for _ in range(number)]


def main() -> int:
    """Run one campaign; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.fleet", description=__doc__)
    parser.add_argument("--units", type=int, default=12)
    parser.add_argument("--parts", type=int, default=4)
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
    campaign.prepare(dsns, given.units, given.parts)
    for _ in range(given.instances):
        campaign.join()
    for instance in campaign.running:
        instance.becomes_ready()
    watch = campaign.watch
    threads = [campaign.guarded(lambda dsn=dsn: campaign.write(dsn)) for dsn in dsns]  # type: ignore[misc]
    threads.append(campaign.guarded(lambda: watch.run(campaign.stopped)))
    for thread in threads:
        thread.start()
    began = time.monotonic()
    try:
        campaign.torment(given.faults)
        time.sleep(5)
    finally:
        campaign.stopped.set()
        for thread in threads:
            thread.join()
    for unit in world.dsns:
        world.settles(unit, 180)
    campaign.judge(once=given.guarantee == "exactly-once")
    summary = {
        "seed": given.seed,
        "guarantee": given.guarantee,
        "units": len(world.dsns),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "faults": dict(campaign.kinds),
        "rows": sum(campaign.written.values()),
        "looks_at_walsenders": watch.looks,
        "longest_without_reader": [
            f"{gap.seconds:.1f} s: {gap.slot}, {gap.kind}, {faults}"
            for gap, faults in sorted(watch.gaps, key=lambda each: each[0].seconds)[-5:]
        ],
    }
    print(json.dumps(summary, indent=2))
    print("\n".join(watch.table()))
    wrong = [*campaign.wrong, *watch.wrong]
    for each in wrong:
        print(f"wrong: {each}")
    print(f"verdict: {'FAILED' if wrong else 'passed'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

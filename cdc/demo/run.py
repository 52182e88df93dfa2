"""Run the demo: start the servers, the publisher and the writers, show events, and compare the results."""

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NoReturn

import psutil
from rich.console import Console

from cdc.config import loading
from cdc.config.settings import Settings
from cdc.demo import comparison, environment
from cdc.demo.comparison import ComparisonLine, Expected, percentile
from cdc.demo.environment import Environment
from cdc.demo.reader import Arrival, BackgroundReader, DemoReader
from cdc.demo.screen import PLAIN_WIDTH, row, screen
from cdc.demo.tally import Tally
from cdc.demo.writers import LARGE_ORDERS, LARGE_PARTS, TABLE, WRITERS, Writers
from cdc.errors import CdcError
from cdc.local import packages
from cdc.lsn import LSN
from cdc.postgres import slots
from cdc.postgres.connection import connect, query

_ARRIVE_SECONDS: Final = 30.0  # after the last commit
_CONFIRM_SECONDS: Final = 15.0  # a status update is sent at least every 10 seconds
_READ_SECONDS: Final = 30.0
LARGE: Final = LARGE_ORDERS * (1 + LARGE_PARTS)
_MARKS: Final = {None: ("", ""), True: ("ok", "green"), False: ("WRONG", "bold red")}


@dataclass(slots=True)
class Latencies:
    """Milliseconds from commit to consumer for each event, separately for the large transaction."""

    seen: set[str] = field(default_factory=set)
    small: list[int] = field(default_factory=list)
    large: list[int] = field(default_factory=list)

    def add(self, arrivals: Iterable[Arrival], large: frozenset[str]) -> None:
        """Add records that the reader received."""
        for arrival in arrivals:
            if arrival.event_id not in self.seen:
                self.seen.add(arrival.event_id)
                (self.large if arrival.event_id in large else self.small).append(arrival.delay_ms)


@dataclass(slots=True)
class Demo:
    """One demo in `environment`, reported on `console`."""

    environment: Environment
    console: Console

    def run(self) -> bool:
        """Run the demo and return whether the comparison passed. Raises CdcError if a server or the publisher fails."""
        _unset_libpq_variables()
        started = time.monotonic()
        addresses, settings = self.environment.up(self.console)
        versions = f"PostgreSQL {self.environment.stack.postgres.version} and Kafka {packages.KAFKA_VERSION}"
        self._say(f"{versions} run at {_place(addresses.postgres)} and {addresses.kafka}")
        self._say(
            f"created table {settings.outbox.table}, publication {settings.postgres.publication} and slot "
            f"{settings.postgres.slot}"
        )
        self._say(f"created topics {' and '.join(environment.topics())}, {settings.topics.partitions} partitions each")
        publisher = self.environment.publish(settings)
        self._say(f"the publisher runs as process {publisher.pid}")
        self._say(f"{WRITERS} writers start; some transactions roll back, and one has {LARGE:,} rows\n")
        tally, latencies = self._show(settings, publisher)
        lines = self._compare(settings, tally)
        self.environment.require(publisher)
        passed = all(line.right is not False for line in lines)
        self.environment.keep_files = not passed
        self._print(lines, tally, latencies)
        self._verdict(passed, time.monotonic() - started)
        return passed

    def _show(self, settings: Settings, publisher: psutil.Process) -> tuple[Tally, Latencies]:
        """Show events until all writers have finished and all committed rows have arrived."""
        latencies = Latencies()
        with contextlib.ExitStack() as exits:
            reader = open_reader(settings, exits)
            with connect(settings.postgres.dsn) as connection:
                connection.execute(TABLE)
            listener = BackgroundReader(reader)
            exits.callback(listener.stop)
            listener.start()
            view = exits.enter_context(screen(self.console))
            writers = Writers(settings.postgres.dsn)
            exits.callback(writers.stop)
            writers.start()
            tally, deadline = writers.tally, 0.0
            while True:
                arrivals = listener.take(0.05)
                latencies.add(arrivals, tally.large)
                at_work = writers.at_work
                self.environment.require(publisher)
                view.show(
                    arrivals, tally, len(latencies.seen), f"{at_work} writing" if at_work else "waiting for events"
                )
                if at_work:
                    deadline = time.monotonic() + _ARRIVE_SECONDS
                elif len(latencies.seen) >= tally.rows or time.monotonic() > deadline:
                    view.show([], tally, len(latencies.seen), "")
                    return tally, latencies

    def _compare(self, settings: Settings, tally: Tally) -> list[ComparisonLine]:
        expected = self._expected(settings)
        with contextlib.ExitStack() as exits:
            reader = open_reader(settings, exits)
            return comparison.compare(tally, expected, list(reader.read_all(_READ_SECONDS)))

    def _expected(self, settings: Settings) -> Expected:
        with connect(settings.postgres.dsn) as connection:
            wal_end = slots.wal_end(connection)
            deadline = time.monotonic() + _CONFIRM_SECONDS
            while True:
                confirmed = slots.get(connection, settings.postgres.slot).confirmed or LSN(0)
                if confirmed >= wal_end or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            ids = query(connection, "counting", "select id::text from public.outbox")
            money = query(
                connection,
                "adding up",
                "select payload->>'currency', sum((payload->>'amount')::numeric) from public.outbox"
                " where type = 'PaymentCaptured' group by 1",
            )
        amounts: dict[str, Decimal] = dict(money)
        return Expected(frozenset(event_id for (event_id,) in ids), amounts, confirmed, wal_end)

    def _print(self, lines: list[ComparisonLine], tally: Tally, latencies: Latencies) -> None:
        self._say(
            f"\n{tally.transactions:,} transactions committed, {tally.rollbacks:,} rolled back, "
            f"{tally.savepoint_rollbacks:,} savepoints rolled back\n"
        )
        for line in lines:
            mark, style = _MARKS[line.right]
            self.console.print(f"  {mark:<6}", style=style, end="", highlight=False)
            self._say(f"{line.what:<36}{line.figure}")
        small, large = latencies.small, latencies.large
        self._say(
            f"\ncommit to consumer: p50 {percentile(small, 0.5)} ms, p99 {percentile(small, 0.99)} ms; "
            f"the large transaction's {len(large):,} rows within {max(large, default=0)} ms"
        )

    def _verdict(self, passed: bool, seconds: float) -> None:
        if passed:
            text = "All checks passed: no events lost, duplicated, invented or reordered."
            self.console.print(text, style="bold green", highlight=False, soft_wrap=True, end=" ")
            self._say(f"({seconds:.0f} s)")
        else:
            self.console.print("CHECKS FAILED: see the lines marked WRONG.", style="bold red", soft_wrap=True)
            self._say(
                f"The servers' data and the publisher's log are kept in {self.environment.home} until the next demo."
            )

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def follow(environment_: Environment, console: Console) -> NoReturn:
    """Show new events of a running demo until interrupted. Raises CdcError if no demo is running."""
    if environment_.stack.addresses() is None or not environment_.config.exists():
        raise CdcError(f"no demo is running in {environment_.home}", "start one with: cdc-publisher demo --keep")
    settings = loading.load(environment_.config, environ={})
    with contextlib.ExitStack() as exits:
        reader = open_reader(settings, exits)
        before = sum(1 for _ in reader.read_all(_READ_SECONDS))
        console.print(f"{before:,} earlier events; waiting for new ones, Ctrl-C to quit", highlight=False)
        while True:
            for arrival in reader.read(0.2):
                console.out(row(arrival, console.width if console.is_terminal else PLAIN_WIDTH), highlight=False)


def open_reader(settings: Settings, exits: contextlib.ExitStack) -> DemoReader:
    """Return a reader of the shop's topics, which `exits` closes."""
    reader = DemoReader(str(settings.kafka["bootstrap.servers"]), environment.topics(), settings.avro.schemas)
    exits.callback(reader.close)
    return reader


def _unset_libpq_variables() -> None:
    # libpq reads PGSSLMODE, PGOPTIONS and others, which are meant for the user's servers and may fail with the demo's.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _place(dsn: str) -> str:
    return dsn.rpartition("@")[2].partition("/")[0]

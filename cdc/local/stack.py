"""The local stack: one PostgreSQL and one or three Kafka brokers that share a home folder.

`up` and `down` of one home wait for each other, `up` leaves either everything or what was there before,
and both find what a killed `up` left, because they ask the process table (see processes.py).
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cdc.errors import LocalStackError
from cdc.local import accounts, packages, processes
from cdc.local.kafka import TERM, KafkaBroker
from cdc.local.ports import Ports, is_free
from cdc.local.postgres import FAST, IMMEDIATE, PostgresServer

MOST_BROKERS = 3
OURS = ("postgres", "ports.json", "ports.json.new", *(f"kafka-{n}" for n in range(1, MOST_BROKERS + 1)))


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers listen: a PostgreSQL DSN, and Kafka's bootstrap servers."""

    postgres: str
    kafka: str


class Stack:
    """The servers in the folder `home`; `brokers` None means as many as it has, else one."""

    def __init__(self, home: Path | None = None, *, brokers: int | None = None) -> None:
        self.home = Path(os.path.realpath(home or packages.cache() / "local"))
        self._file = self.home / "stack.json"
        self._ports = Ports(self.home / "ports.json")
        count = brokers or self._remembered() or 1
        if count not in (1, MOST_BROKERS):
            raise LocalStackError(f"a stack has 1 or {MOST_BROKERS} brokers, not {count}")
        self.postgres = PostgresServer(self.home / "postgres")
        self.brokers = [KafkaBroker(self.home, node_id, count) for node_id in range(1, count + 1)]

    def up(self, console: Console | None = None) -> Addresses:
        """Start what does not run, wait until all of it answers, and return the addresses.

        Stops what it started when anything goes wrong, Ctrl-C included. Raises LocalStackError.
        """
        packages.require()
        try:
            with self._lock(console):
                self._claim()
                classpath = packages.kafka(console)
                self._settle_ports()
                self._start(classpath, console)
        except OSError as error:
            raise LocalStackError(f"the local stack in {self.home} cannot start: {error}") from error
        return self._addresses()

    def down(self, *, purge: bool = False) -> bool:
        """Stop everything; True when something ran. `purge` also removes the data, but not the downloads.

        Raises LocalStackError.
        """
        try:
            # A home that was removed by hand is not made again, but its servers may still run.
            with self._lock(None) if self.home.exists() else contextlib.nullcontext():
                stopped = self._stop(at_once=purge)
                if purge:
                    self._remove()
        except OSError as error:
            raise LocalStackError(f"the local stack in {self.home} cannot be removed: {error}") from error
        return stopped

    def addresses(self) -> Addresses | None:
        """Where the servers listen; None when one of them does not run."""
        return self._addresses() if all(server.process for server in self._servers) else None

    @property
    def _servers(self) -> list[PostgresServer | KafkaBroker]:
        return [self.postgres, *self.brokers]

    def _addresses(self) -> Addresses:
        return Addresses(self.postgres.dsn, ",".join(broker.address for broker in self.brokers))

    def _start(self, classpath: list[Path], console: Console | None) -> None:
        ran = [server for server in self._servers if server.process]
        tasks = [self.postgres.starting(), *(broker.starting(classpath) for broker in self.brokers)]
        try:
            with console.status("starting PostgreSQL and Kafka") if console else contextlib.nullcontext():
                processes.finish(*tasks)
        except BaseException:
            started = [server for server in self._servers if server not in ran]
            processes.finish(*(server.stopping() for server in started))
            raise

    def _stop(self, *, at_once: bool) -> bool:
        # All that the home can have, whatever number of brokers this object was made for.
        brokers = [KafkaBroker(self.home, node_id) for node_id in range(1, MOST_BROKERS + 1)]
        postgres = self.postgres
        ran = bool(postgres.process) or any(broker.process for broker in brokers)
        # Data that is about to be removed needs no orderly end. (PostgreSQL reaps its children even so; killed,
        # it would leave them to process 1, which in a container may reap nobody.)
        tasks = [postgres.stopping(IMMEDIATE if at_once else FAST)]
        tasks += [broker.stopping(processes.KILL if at_once else TERM) for broker in brokers]
        processes.finish(*tasks)
        return ran

    def _settle_ports(self) -> None:
        """Give up the ports that somebody else took while our servers were down."""
        postgres = self.postgres
        if not postgres.process and not is_free(postgres.port):
            postgres.renew_port()
        down = [broker for broker in self.brokers if not broker.process]
        taken = [
            name
            for broker in down
            for name in (f"kafka-{broker.node_id}", f"controller-{broker.node_id}")
            if not is_free(self._ports.get(name))
        ]
        for name in taken:
            self._ports.renew(name)
        if taken:  # each broker knows the controllers of all
            processes.finish(*(broker.stopping() for broker in self.brokers))

    def _claim(self) -> None:
        """Make the home ours. Raises LocalStackError when it holds something else, or another number of brokers."""
        remembered = self._remembered()
        if remembered == len(self.brokers):
            return
        if remembered:
            raise LocalStackError(
                f"the stack in {self.home} has {remembered} broker(s), not {len(self.brokers)}",
                "remove it first with `cdc-publisher local down --purge`, or choose another --home",
            )
        foreign = sorted({path.name for path in self.home.iterdir()} - {"lock", "stack.json.new"})
        if foreign:
            raise LocalStackError(f"{self.home} is not empty ({foreign[0]}) and is no stack", "choose another --home")
        draft = self._file.with_name("stack.json.new")
        draft.write_text(json.dumps({"brokers": len(self.brokers)}) + "\n")
        os.replace(draft, self._file)

    def _remembered(self) -> int | None:
        """The number of brokers of the stack in this home; None when there is no stack."""
        try:
            return int(json.loads(self._file.read_text())["brokers"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LocalStackError(f"{self._file} is damaged: {error}", f"remove {self.home}") from error

    def _remove(self) -> None:
        # Only what is ours, by name: the folder came from the user.
        processes.remove(accounts.shelter(self.postgres.home))
        if self._remembered() is None:
            return
        for name in OURS:
            processes.remove(self.home / name)
        self._file.unlink()  # last: until here, another purge can go on
        (self.home / "lock").unlink()
        with contextlib.suppress(OSError):
            self.home.rmdir()

    @contextlib.contextmanager
    def _lock(self, console: Console | None) -> Iterator[None]:
        """One `up` or `down` at a time; the kernel gives the lock back when its holder dies."""
        path = self.home / "lock"
        while True:
            self.home.mkdir(parents=True, exist_ok=True)
            with path.open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if console:
                        console.print("waiting for another `local up` or `local down`", highlight=False)
                    fcntl.flock(file, fcntl.LOCK_EX)
                # Its holder may have been a purge, which removed the file that we have now locked.
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield
                    return

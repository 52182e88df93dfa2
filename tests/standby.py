"""A primary and its standby, on loopback, both of which a test may kill."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.local import accounts, processes
from cdc.local.postgres import PostgresServer
from tests.pipeline import eventually

PHYSICAL_SLOT = "standby"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers of one system; the standby follows the primary through a replication slot and knows its slots."""

    primary: PostgresServer
    standby: PostgresServer

    @property
    def dsn(self) -> str:
        """Leads to whichever of them takes writes."""
        ports = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres@{ports}/postgres?target_session_attrs=read-write&connect_timeout=2"

    def promote(self) -> None:
        """Make the standby the primary."""
        with psycopg.connect(self.standby.dsn, autocommit=True) as connection:
            connection.execute("select pg_promote()")

    def rejoined(self) -> "Pair":
        """Make the former primary, which is down, the standby of the promoted one: the same pair with swapped parts.

        `pg_rewind` removes its slots with everything else that the new primary does not have.
        """
        former, primary = self.primary, self.standby
        with psycopg.connect(primary.dsn, autocommit=True) as connection:
            connection.execute("select pg_create_physical_replication_slot(%s)", [PHYSICAL_SLOT])
        with (former.data / "postgresql.conf").open("a") as settings:
            # For its recovery by pg_rewind, which then needs the WAL back to the last checkpoint they have in common.
            settings.write("wal_level = logical\nmax_prepared_transactions = 20\nwal_keep_size = 512MB\n")
        _run(former, "pg_rewind", "--target-pgdata", str(former.data), "--source-server", primary.dsn, "--no-sync")
        former.settings = _following(primary)
        _becomes_standby(former)
        former.start()
        return Pair(primary, former)

    def synchronised(self, slot: str) -> None:
        """Wait until the standby knows a failover slot of the primary, which somebody must read: a standby takes over
        no slot that is behind its own beginning."""
        with (
            psycopg.connect(self.primary.dsn, autocommit=True) as primary,
            psycopg.connect(self.standby.dsn, autocommit=True) as standby,
        ):

            def synced() -> bool:
                primary.execute("select pg_log_standby_snapshot()")  # what lets a slot's restart_lsn advance
                return standby.execute(_SYNCED, [slot]).fetchone() is not None

            eventually(synced, "the standby copies the slot")


_SYNCED: Final = "select from pg_replication_slots where slot_name = %s and synced and not temporary"

PrivatePair = Callable[..., Pair]


@pytest.fixture
def private_pair(folder: Path) -> Iterator[PrivatePair]:
    """`private_pair(settings={...}, binaries=...)` starts a primary with these settings, and its standby."""
    with contextlib.ExitStack() as purges:

        def start(settings: Mapping[str, str] | None = None, binaries: Path | None = None) -> Pair:
            primary = PostgresServer(
                # A publisher that is asked for its position often lets the slot advance often.
                folder / f"primary-{secrets.token_hex(3)}",
                settings={"wal_sender_timeout": "2s", "wal_keep_size": "512MB", **(settings or {})},
                binaries=binaries,
            )
            purges.callback(primary.purge)
            primary.start()
            with psycopg.connect(primary.dsn, autocommit=True) as connection:
                connection.execute("select pg_create_physical_replication_slot(%s)", [PHYSICAL_SLOT])
            following = _following(primary)
            if binaries is not None:
                del following["sync_replication_slots"]  # of PostgreSQL 17
            standby = PostgresServer(folder / f"standby-{secrets.token_hex(3)}", settings=following, binaries=binaries)
            purges.callback(standby.purge)
            _copy(primary, standby)
            standby.start()
            return Pair(primary, standby)

        yield start


def _following(primary: PostgresServer) -> dict[str, str]:
    """The settings of a standby that copies the failover slots of its primary."""
    return {
        "primary_conninfo": make_conninfo(primary.dsn, application_name=PHYSICAL_SLOT),
        "primary_slot_name": PHYSICAL_SLOT,
        "hot_standby_feedback": "on",
        "sync_replication_slots": "on",
        "wal_retrieve_retry_interval": "200ms",
    }


def _copy(primary: PostgresServer, standby: PostgresServer) -> None:
    """Take a base backup of one server for another that has no data yet."""
    data = standby.home / "data"
    data.mkdir(parents=True, mode=0o700)
    accounts.give(data, accounts.unprivileged())
    _run(standby, "pg_basebackup", "--pgdata", str(data), "--dbname", primary.dsn, "--checkpoint=fast", "--no-sync")
    _becomes_standby(standby)


def _becomes_standby(server: PostgresServer) -> None:
    signal = server.data / "standby.signal"
    signal.touch()
    accounts.give(signal, accounts.unprivileged())


def _run(server: PostgresServer, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs to its end, as the account of the server."""
    user = accounts.unprivileged()
    command = [str(server._binaries(user) / program), *arguments]
    processes.finish(processes.running(command, log=server.log, env=processes.environment(without="PG"), user=user))

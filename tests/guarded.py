"""A PostgreSQL that takes in by TLS and SCRAM, or by client certificates; the tests' own superuser needs neither."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc.local import accounts
from cdc.local.postgres import PostgresServer
from tests.pipeline import eventually
from tests.servers import a_folder, a_postgres
from tests.tls import HOSTS, Authority, Issued
from tests.versions import POSTGRES_WITH_TLS

RULES = """\
hostssl all mutual 127.0.0.1/32 cert
hostssl all all    127.0.0.1/32 scram-sha-256
host    all all    127.0.0.1/32 reject
"""


@contextlib.contextmanager
def a_guarded_postgres() -> Iterator["GuardedPostgres"]:
    """A server for the tests of a module, which are skipped where no PostgreSQL with TLS is installed."""
    if POSTGRES_WITH_TLS is None:
        pytest.skip("no PostgreSQL with TLS: install Debian's package `postgresql`")
    with a_folder() as folder, a_postgres(folder, POSTGRES_WITH_TLS) as server:
        yield GuardedPostgres(server, folder)


class GuardedPostgres:
    """A server with the database `shop`, whose certificate is of `authority`, for 127.0.0.1."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server = server
        self.authority = Authority(folder)
        with self.connect("postgres") as connection:
            connection.execute("create database shop")
            for name, file in (("cert", "server.crt"), ("key", "server.key"), ("ca", "ca.crt")):
                connection.execute(sql.SQL("alter system set {} = {}").format(sql.SQL(f"ssl_{name}_file"), file))
            connection.execute("alter system set ssl = on")
        self._put("ca.crt", self.authority.file)
        self.show(self.authority.issue("server", HOSTS))
        self.allow(RULES)

    def connect(self, database: str = "shop") -> "psycopg.Connection[tuple[Any, ...]]":
        """As the superuser."""
        return psycopg.connect(self.server.dsn, dbname=database, autocommit=True)

    def dsn(self, user: str, **parameters: str) -> str:
        """How a user gets in, without a password; checks the server's certificate unless told otherwise."""
        found = {"sslmode": "verify-full", "sslrootcert": str(self.authority.file), **parameters}
        query = "&".join(f"{name}={value}" for name, value in found.items())
        return f"postgresql://{user}@127.0.0.1:{self.server.port}/shop?{query}"

    def role(self, name: str, password: str | None = None) -> None:
        """A role that may replicate, as the publisher needs it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("create role {} login replication").format(sql.Identifier(name)))
        if password:
            self.set_password(name, password)

    def set_password(self, name: str, password: str) -> None:
        """As psql's \\password: only the hash goes to the server."""
        with self.connect() as connection:
            connection.pgconn.change_password(name.encode(), password.encode())

    def show(self, issued: Issued) -> None:
        """Show this certificate from now on."""
        self._put("server.crt", issued.certificate)
        self._put("server.key", issued.key)
        self._reload()

    def allow(self, rules: str) -> None:
        """Who may come in besides the superuser: lines of pg_hba.conf."""
        own = "host all postgres 127.0.0.1/32 trust\n"
        (self.server.data / "pg_hba.conf").write_text(own + rules)
        self._reload()

    def _put(self, name: str, file: Path) -> None:
        path = self.server.data / name
        path.write_bytes(file.read_bytes())
        path.chmod(0o600)
        accounts.give(path, accounts.unprivileged())

    def _reload(self) -> None:
        def loaded() -> Any:
            with self.connect("postgres") as connection:
                return connection.execute("select pg_conf_load_time()").fetchone()

        before = loaded()
        with self.connect("postgres") as connection:
            connection.execute("select pg_reload_conf()")
        eventually(lambda: loaded() != before, "the configuration is loaded again")

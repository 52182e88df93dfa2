"""Use `check` as an operator does: read the lines, copy each fix as it is printed, check again."""

import contextlib
import json
import os
import secrets
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import cdc.local.postgres
from cdc.cli.main import cli
from cdc.local import maven, packages
from cdc.local.postgres import PostgresServer
from cdc.logs import format as lines
from tests import brokers, forking, produced
from tests.pipeline import PATIENCE, Pipeline, eventually, make_pipeline
from tests.servers import drop_database

_SCRIPTS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-reassign-partitions.sh": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
}
_SECONDS = 15.0
_SHELL = ("cdc-publisher ", "kafka-", "psql ", "echo ")


class Line(NamedTuple):
    """One line of the output of `check --json`, without its name and side."""

    status: str
    found: str
    fix: list[str]
    hint: str | None


def check(pipeline: Pipeline, *options: str) -> dict[str, Line]:
    """Run `check --json` in this process, and return its lines by name."""
    arguments = ["--config", str(pipeline.configure()), "check", "--json", *options]
    try:
        done = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
    finally:
        lines.hide(str)
    return parsed(done.stdout, done.return_value)


def parsed(output: str, exit_code: int) -> dict[str, Line]:
    """Parse the output of `check --json`, compare it with the exit code, and record its lines as produced."""
    answer = json.loads(output)
    failed = [one for one in answer["checks"] if one["status"] == "fail"]
    assert (exit_code, answer["ok"]) == (1 if failed else 0, not failed)
    found = {one["name"]: Line(one["status"], one["found"], one["fix"], one["hint"]) for one in answer["checks"]}
    names = [one["name"] for one in answer["checks"]]
    assert len(found) == len(names) == sum(answer["counts"].values()), names
    produced.record((name, line.status) for name, line in found.items())
    return found


def not_passed(found: dict[str, Line]) -> dict[str, str]:
    """Return the names and statuses of the lines that do not pass."""
    return {name: line.status for name, line in found.items() if line.status != "pass"}


def fixed(pipeline: Pipeline, name: str, status: str, *phrases: str, options: tuple[str, ...] = ()) -> Line:
    """Expect a line that does not pass, run its fix as it is printed, and expect a pass; return the first line."""
    line = check(pipeline, *options)[name]
    assert line.status == status, line
    for phrase in phrases:
        assert phrase in line.found
    assert line.fix, line
    copied(pipeline, line.fix)
    # After pg_reload_conf() a server applies its settings with a short delay.
    eventually(lambda: check(pipeline, *options)[name].status == "pass", f"{name} passes", _SECONDS)
    return line


def reported(pipeline: Pipeline, name: str, status: str, *phrases: str, options: tuple[str, ...] = ()) -> Line:
    """Expect a line that does not pass and has a hint, but no command that fixes it."""
    line = check(pipeline, *options)[name]
    assert line.status == status, line
    for phrase in phrases:
        assert phrase in line.found
    assert (line.fix, bool(line.hint)) == ([], True)
    return line


def copied(pipeline: Pipeline, statements: list[str], superuser: str = "") -> None:
    """Run statements as a superuser of the server, and commands in a shell."""
    dsn = superuser or make_conninfo(pipeline.dsn)
    for statement in statements:
        if statement.startswith(_SHELL):
            shell(pipeline, statement, dsn)
        else:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(statement.encode())


def shell(pipeline: Pipeline, command: str, dsn: str) -> None:
    """Run a shell command with `cdc-publisher`, `psql` and Kafka's scripts on the PATH; it must succeed."""
    server = conninfo_to_dict(dsn)
    environment = {
        **os.environ,
        "PATH": f"{scripts(pipeline.folder)}:{os.environ['PATH']}",
        **{name: str(server[key]) for name, key in _PSQL.items() if server.get(key)},
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=pipeline.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


_PSQL = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname"}


def scripts(folder: Path) -> Path:
    """Create a folder with the programs that fixes use, and return it."""
    made = folder / "bin"
    if made.is_dir():
        return made
    made.mkdir()
    classpath = ":".join(map(str, [*packages.kafka(), _tools()]))
    java = [str(packages.java()), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    archive = f"-XX:SharedArchiveFile={brokers.archive()}"  # holds most of their classes too
    for name, main in _SCRIPTS.items():
        _script(made / name, [*java, archive, "-cp", classpath, main])
    _script(made / "cdc-publisher", [str(forking.program() / "cdc-publisher")])
    _script(made / "psql", [str(_psql())])
    return made


def _tools() -> Path:
    """Return the archive with Kafka's command line tools; download it if it is not cached."""
    version, repository = packages.KAFKA_VERSION, packages.cache() / "jars"
    jar = repository / "org" / "apache" / "kafka" / "kafka-tools" / version / f"kafka-tools-{version}.jar"
    if not jar.is_file():
        maven.download((f"org.apache.kafka:kafka-tools:{version}",), repository, "Kafka's tools", None)
    return jar


def _script(path: Path, command: list[str]) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)


def _psql() -> Path:
    return packages.postgres() / "pginstall" / "bin" / "psql"


@contextlib.contextmanager
def sandbox(home: Path) -> Iterator[PostgresServer]:
    """Run a server with PostgreSQL's default settings, which tests change by `ALTER SYSTEM` and restarts."""
    kept = {name: cdc.local.postgres.SETTINGS[name] for name in ("listen_addresses", "unix_socket_directories")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cdc.local.postgres, "SETTINGS", kept)
        server = PostgresServer(home)
        server.start()
        try:
            yield server
        finally:
            server.purge()


@contextlib.contextmanager
def database(server: PostgresServer, kafka: str, folder: Path) -> Iterator[Pipeline]:
    """Create a database, and yield a pipeline in it; drop it afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    pipeline = make_pipeline(make_conninfo(server.dsn, dbname=name), kafka, f"{name}-", folder)
    try:
        yield pipeline
    finally:
        pipeline.close()
        drop_database(server.dsn, name)


def altered(server: PostgresServer, **settings: str) -> None:
    """Change settings by `ALTER SYSTEM`, and restart the server."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(
                sql.SQL("alter system set {} = {}")
                .format(sql.Identifier(name), sql.Literal(value))
                .as_string()
                .encode()
            )
    restarted(server)


def restarted(server: PostgresServer) -> None:
    """Restart the server; the sandbox keeps its address."""
    server.stop()
    server.start()


def own_address() -> str:
    """Return this machine's address in its network, which is not the loopback address."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect(("192.0.2.1", 9))  # which sends no packet
        return str(probe.getsockname()[0])


def role(pipeline: Pipeline, options: str = "login replication") -> str:
    """Create a role without a password, and let `check` connect as it; drop it with `no_role`."""
    name = f"Role of {pipeline.slot}"
    pipeline.sql(f'create role "{name}" {options}')
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, user=name)
    return name


def no_role(pipeline: Pipeline, name: str) -> None:
    """Drop a role and its grants, and let `check` connect as before."""
    pipeline.settings["postgres"]["dsn"] = pipeline.dsn
    pipeline.sql(f'drop owned by "{name}"')
    pipeline.sql(f'drop role "{name}"')

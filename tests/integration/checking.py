"""`check` as its user works with it: read the lines, copy each fix as it is printed, check again."""

import contextlib
import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
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
    """One line of the answer."""

    status: str
    found: str
    fix: list[str]
    hint: str | None


def check(pipeline: Pipeline, *options: str) -> dict[str, Line]:
    """The lines by their names, as `--json` has them."""
    arguments = ["--config", str(pipeline.configure()), "check", "--json", *options]
    try:
        done = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
    finally:
        lines.hide(str)
    answer = json.loads(done.stdout)
    failed = [one for one in answer["checks"] if one["status"] == "fail"]
    assert (done.return_value, answer["ok"]) == (1 if failed else 0, not failed)
    found = {one["name"]: Line(one["status"], one["found"], one["fix"], one["hint"]) for one in answer["checks"]}
    names = [one["name"] for one in answer["checks"]]
    assert len(found) == len(names) == sum(answer["counts"].values()), names
    return found


def not_passed(found: dict[str, Line]) -> dict[str, str]:
    """The status of each line that does not pass."""
    return {name: line.status for name, line in found.items() if line.status != "pass"}


def mended(pipeline: Pipeline, name: str, status: str, *phrases: str, options: tuple[str, ...] = ()) -> Line:
    """See a line that does not pass, do what it says as it is printed, and see it pass; returns what it was."""
    line = check(pipeline, *options)[name]
    assert line.status == status, line
    for phrase in phrases:
        assert phrase in line.found
    assert line.fix, line
    copied(pipeline, line.fix)
    # A server that was told to read its settings again does so a moment later.
    eventually(lambda: check(pipeline, *options)[name].status == "pass", f"{name} passes", _SECONDS)
    return line


def told(pipeline: Pipeline, name: str, status: str, *phrases: str, options: tuple[str, ...] = ()) -> Line:
    """See a line that does not pass, and that can be mended in the settings or at the servers only."""
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
    """Run a command where `cdc-publisher`, `psql` and Kafka's scripts are found."""
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
    """A folder with the programs that fixes name."""
    made = folder / "bin"
    if made.is_dir():
        return made
    made.mkdir()
    classpath = ":".join(map(str, [*packages.kafka(), _tools()]))
    java = [str(packages.java()), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    for name, main in _SCRIPTS.items():
        _script(made / name, [*java, "-cp", classpath, main])
    _script(made / "cdc-publisher", [sys.executable, "-m", "cdc"])
    _script(made / "psql", [str(_psql())])
    return made


def _tools() -> Path:
    """What Kafka's archive has beside the broker."""
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
    """A server of PostgreSQL's own defaults, whose settings `ALTER SYSTEM` changes; it may be restarted."""
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
    """A pipeline in a new database of the server."""
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
    """Change settings for good, with a restart."""
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
    """Stop it and start it."""
    server.stop()
    server.start()


def own_address() -> str:
    """The address of this machine that others would see."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect(("192.0.2.1", 9))  # which sends no packet
        return str(probe.getsockname()[0])


def role(pipeline: Pipeline, options: str = "login replication") -> str:
    """A new role with a password-less entrance, by whose name `check` connects from now on; drop it with `no_role`."""
    name = f"Role of {pipeline.slot}"
    pipeline.sql(f'create role "{name}" {options}')
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, user=name)
    return name


def no_role(pipeline: Pipeline, name: str) -> None:
    """Drop a role with all that it was granted."""
    pipeline.settings["postgres"]["dsn"] = pipeline.dsn
    pipeline.sql(f'drop owned by "{name}"')
    pipeline.sql(f'drop role "{name}"')

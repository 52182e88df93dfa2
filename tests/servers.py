"""Real servers for tests.

Shared ones come from, in this order: CDC_TEST_POSTGRES_DSN and CDC_TEST_KAFKA (either alone is possible), for workers
of pytest-xdist one local stack, whose home their controller reserves and removes, Docker through testcontainers where
an engine answers, else the local stack. Tests that torment a server take a private one.
"""

import contextlib
import fcntl
import gc
import importlib
import itertools
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, LiteralString

import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc.local.postgres import PostgresServer
from cdc.local.stack import Stack

CACHE = Path(__file__).resolve().parent.parent / ".cache"
POSTGRES_IMAGE = "postgres:18"
KAFKA_IMAGE = "confluentinc/cp-kafka:8.1.0"  # Apache Kafka 4.1

PrivatePostgres = Callable[..., PostgresServer]
PrivateStack = Callable[..., Stack]


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the shared servers listen: a DSN with the rights to create databases and slots, and bootstrap servers."""

    dsn: str
    kafka: str


_HOME = pytest.StashKey[Path]()
_EXIT = pytest.StashKey[contextlib.ExitStack]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker the home of the stack that all workers share: the first that needs it starts it."""
    stash = node.config.stash
    if _HOME not in stash:
        stash[_EXIT] = contextlib.ExitStack()
        stash[_HOME] = stash[_EXIT].enter_context(_home())
    node.workerinput["home"] = str(stash[_HOME])


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the stack that the workers shared."""
    if _HOME in config.stash:
        with config.stash[_EXIT]:
            Stack(config.stash[_HOME]).down(purge=True)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """PostgreSQL with wal_level=logical, and Kafka; both are shared by the whole session."""
    dsn, kafka = os.environ.get("CDC_TEST_POSTGRES_DSN"), os.environ.get("CDC_TEST_KAFKA")
    if dsn and kafka:
        yield Servers(dsn, kafka)
    elif shared := getattr(request.config, "workerinput", {}).get("home"):
        addresses = Stack(Path(shared)).up()  # which waits for another worker's
        yield Servers(dsn or addresses.postgres, kafka or addresses.kafka)
    elif _docker_answers():
        with contextlib.ExitStack() as containers:
            yield Servers(dsn or _docker_postgres(containers), kafka or _docker_kafka(containers))
    else:
        with _home() as home:
            stack = Stack(home)
            addresses = stack.up()
            try:
                yield Servers(dsn or addresses.postgres, kafka or addresses.kafka)
            finally:
                stack.down(purge=True)


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A folder that no other session of tests uses now; what one left that was killed is used again."""
    CACHE.mkdir(exist_ok=True)
    for number in itertools.count(1):
        home = CACHE / f"test-stack-{number}"
        with home.with_suffix(".lock").open("w") as lock:
            if _locks(lock):
                yield home
                return


def _locks(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _docker_answers() -> bool:
    docker: Any = importlib.import_module("docker")  # comes with testcontainers, without types
    with warnings.catch_warnings():
        # Where no engine answers, the client's constructor raises and leaves its socket to the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with contextlib.closing(docker.from_env(timeout=3)) as client:
                return bool(client.ping())
        except Exception:  # of docker, of requests, or of the system
            return False
        finally:
            gc.collect()


def _docker_postgres(containers: contextlib.ExitStack) -> str:
    from testcontainers.postgres import PostgresContainer

    container: Any = PostgresContainer(POSTGRES_IMAGE, username="postgres", dbname="postgres", driver=None)
    settings = {"wal_level": "logical", "max_replication_slots": 50, "max_wal_senders": 50, "max_connections": 200}
    container.with_command(" ".join(["postgres", *(f"-c {name}={value}" for name, value in settings.items())]))
    containers.enter_context(container)
    return str(container.get_connection_url())


def _docker_kafka(containers: contextlib.ExitStack) -> str:
    from testcontainers.kafka import KafkaContainer

    container: Any = KafkaContainer(KAFKA_IMAGE).with_kraft()
    container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
    containers.enter_context(container)
    return str(container.get_bootstrap_server())


@pytest.fixture
def database(servers: Servers, request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a fresh database; it is dropped afterwards, with its replication slots and sessions.

    As a parameter it takes the binaries of a server of the module; None for the shared one.
    """
    binaries = getattr(request, "param", None)
    server = servers.dsn if binaries is None else request.getfixturevalue("module_postgres")(binaries).dsn
    with a_database(server) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def quiet_postgres() -> Iterator[str]:
    """The DSN of a server for the tests of one module, where no transaction of another test is open."""
    with a_folder() as home, a_postgres(home) as server:
        yield server.dsn


@contextlib.contextmanager
def a_database(server: str, options: LiteralString = "") -> Iterator[str]:
    """The same on the server of a DSN, with options of CREATE DATABASE."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as admin:
        # As 14 does: else a database is 8 MB of WAL, which the publishers of other tests are sent.
        strategy = sql.SQL("strategy file_copy" if admin.info.server_version >= 150000 else "")
        admin.execute(sql.SQL("create database {} {} {}").format(sql.Identifier(name), strategy, sql.SQL(options)))
    try:
        yield make_conninfo(server, dbname=name)
    finally:
        drop_database(server, name)


def drop_database(dsn: str, name: str) -> None:
    """Drop a database of the server at `dsn` with its slots, ending walsenders and sessions first."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        # The walsender of a slot that is dropped must be gone, hence the 5 seconds of waiting for its end.
        admin.execute(
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
            " where database = %s and active_pid is not null",
            [name],
        )
        admin.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s", [name]
        )
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def topic_prefix(servers: Servers) -> Iterator[str]:
    """A random prefix for names of topics; topics with it are deleted afterwards."""
    with topics_deleted(servers.kafka) as prefix:
        yield prefix


@contextlib.contextmanager
def topics_deleted(kafka: str) -> Iterator[str]:
    """The same for the cluster at `kafka`."""
    prefix = f"test-{secrets.token_hex(6)}-"
    yield prefix
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    topics = [topic for topic in admin.list_topics(timeout=30).topics if topic.startswith(prefix)]
    if topics:
        for future in admin.delete_topics(topics, operation_timeout=30).values():
            with contextlib.suppress(KafkaException):  # deleted by the test meanwhile
                future.result()


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    """A new folder that PostgreSQL's account can enter under root as well, unlike pytest's tmp_path."""
    made = Path(tempfile.mkdtemp(prefix="cdc-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """The same for one test."""
    with a_folder() as made:
        yield made


@contextlib.contextmanager
def a_postgres(folder: Path, binaries: Path | None = None) -> Iterator[PostgresServer]:
    """A server for the tests of a module; `private_postgres` is for one test."""
    server = PostgresServer(folder / "postgres", binaries=binaries)
    try:
        server.start()
        yield server
    finally:
        server.purge()


PostgresOf = Callable[[Path | None], PostgresServer]


@pytest.fixture(scope="module")
def module_postgres() -> Iterator[PostgresOf]:
    """`module_postgres(binaries)` starts a server of these binaries for the tests of the module; each calls it again.

    Tests use databases of their own in it, and leave its settings and roles as they were.
    """
    started: dict[Path | None, PostgresServer] = {}
    with contextlib.ExitStack() as ends:

        def start(binaries: Path | None) -> PostgresServer:
            if binaries not in started:
                started[binaries] = ends.enter_context(a_postgres(ends.enter_context(a_folder()), binaries))
            started[binaries].start()  # where a test has stopped it
            return started[binaries]

        yield start


@pytest.fixture
def private_postgres(folder: Path) -> Iterator[PrivatePostgres]:
    """`private_postgres(settings={...}, binaries=...)` starts a server for this test alone."""
    with contextlib.ExitStack() as purges:

        def start(settings: Mapping[str, str] | None = None, binaries: Path | None = None) -> PostgresServer:
            home = folder / f"postgres-{secrets.token_hex(3)}"
            server = PostgresServer(home, settings=settings, binaries=binaries)
            purges.callback(server.purge)
            server.start()
            return server

        yield start


@pytest.fixture
def private_stack(folder: Path) -> Iterator[PrivateStack]:
    """`private_stack(brokers=3, kafka={...}, postgres={...})` starts both with these settings for this test alone.

    With `kafka=None` the test starts the brokers: each start takes seconds of processor time.
    """
    with contextlib.ExitStack() as purges:

        def start(
            brokers: int = 1,
            kafka: Mapping[str, str] | None = MappingProxyType({}),
            postgres: Mapping[str, str] | None = None,
        ) -> Stack:
            stack = Stack(folder / f"stack-{secrets.token_hex(3)}", brokers=brokers)
            stack.postgres.settings.update(postgres or {})
            for broker in stack.brokers:
                broker.settings.update(kafka or {})
            purges.callback(stack.down, purge=True)
            if kafka is None:
                stack.postgres.start()
            else:
                stack.up()
            return stack

        yield start

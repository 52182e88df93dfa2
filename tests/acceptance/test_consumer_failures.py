"""Failures that all events would have alike, on real servers: none of them makes an event a dead letter."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from cdc.consumer import Consumer, Decoder, Event, HandlerFailed, Inbox, Retry
from cdc.errors import ConfigError, PostgresError
from cdc.registry.errors import RegistryError
from tests.consuming import APPLIED, Handler, Running, Sent, applied, committed, ends, make_topic, read, send, texts
from tests.registry import Double
from tests.servers import Servers

RETRY = Retry(attempts=3, first_seconds=0.01, longest_seconds=0.02)
CONTRACT = {"type": "record", "name": "Noted", "fields": [{"name": "n", "type": "int"}]}
EVENTS = [Sent(lsn, partition=0) for lsn in range(1, 5)]


@pytest.fixture
def kafka(servers: Servers, topic_prefix: str) -> dict[str, Any]:
    return {"bootstrap.servers": servers.kafka, "group.id": f"{topic_prefix}group"}


@pytest.fixture
def topic(servers: Servers, topic_prefix: str) -> str:
    return make_topic(servers.kafka, f"{topic_prefix}events")


@pytest.fixture
def dead(servers: Servers, topic_prefix: str) -> str:
    return make_topic(servers.kafka, f"{topic_prefix}dead")


@pytest.fixture
def inbox(database: str) -> Inbox:
    made = Inbox("tests")
    with psycopg.connect(database) as connection:
        made.create(connection)
        connection.execute(APPLIED)
    return made


def write(event: Event, connection: "psycopg.Connection[Any]") -> None:
    assert event.position
    connection.execute("insert into applied (id, key, seq) values (%s, 'k', %s)", [event.id, event.position.commit_lsn])


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True, options="-c default_transaction_read_only=off") as admin:
        name = sql.Identifier(admin.info.dbname).as_string()
        admin.execute(statement.format(database=name).encode())


class Connecting:
    """Opens connections to a database, and counts them."""

    def __init__(self, dsn: str, setup: str = "") -> None:
        self.dsn, self.setup = dsn, setup
        self.opened = 0
        self.failure: Exception | None = None

    def __call__(self) -> "psycopg.Connection[Any]":
        self.opened += 1
        if self.failure is not None:
            raise self.failure
        made = psycopg.connect(self.dsn)
        if self.setup:
            made.execute(self.setup.encode())
        return made


@pytest.mark.parametrize("within_the_handler", [False, True])
def test_case_h3_a_read_only_database_holds_the_partition_until_a_session_can_write(
    servers: Servers,
    kafka: dict[str, Any],
    topic: str,
    dead: str,
    database: str,
    inbox: Inbox,
    within_the_handler: bool,
) -> None:
    connect, read_only = Connecting(database), [True]
    if not within_the_handler:
        execute(database, "alter database {database} set default_transaction_read_only = on")

    def handle(event: Event, connection: "psycopg.Connection[Any]") -> None:
        if within_the_handler and read_only:
            connection.execute("set transaction_read_only = on")
        write(event, connection)

    send(servers.kafka, topic, EVENTS)
    consumer = Consumer(
        kafka, [topic], handle, inbox=inbox, connect=connect, dead_letter=dead, retry=RETRY, commit_seconds=0.05
    )
    with Running(consumer) as running:
        running.until(lambda: connect.opened > 8, "each attempt opens another session")
        assert applied(database) == []
        execute(database, "alter database {database} reset default_transaction_read_only")
        read_only.clear()
        running.until(lambda: committed(servers.kafka, kafka["group.id"], topic) == [4], "all is done")
    assert [seq for _, _, seq in applied(database)] == [1, 2, 3, 4]
    assert ends(servers.kafka, dead) == [0]


def test_case_h3_a_connect_that_fails_while_running_holds_the_partition(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str, database: str, inbox: Inbox
) -> None:
    connect = Connecting(database)

    def handle(event: Event, connection: "psycopg.Connection[Any]") -> None:
        if connect.opened == 1:
            connect.failure = KeyError("the vault has no password")
            connection.close()
        write(event, connection)

    send(servers.kafka, topic, EVENTS)
    consumer = Consumer(
        kafka, [topic], handle, inbox=inbox, connect=connect, dead_letter=dead, retry=RETRY, commit_seconds=0.05
    )
    with Running(consumer) as running:
        running.until(lambda: connect.opened > 8, "each attempt connects again")
        connect.failure = None
        running.until(lambda: committed(servers.kafka, kafka["group.id"], topic) == [4], "all is done")
    assert [seq for _, _, seq in applied(database)] == [1, 2, 3, 4]
    assert ends(servers.kafka, dead) == [0]


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("drop table inbox", PostgresError),
        ("alter table inbox drop constraint inbox_pkey", PostgresError),
        ("drop table applied", errors.UndefinedTable),
        ("alter table applied drop column seq", errors.UndefinedColumn),
    ],
)
def test_case_h3_a_table_that_is_not_as_it_should_be_ends_the_consumer(
    servers: Servers,
    kafka: dict[str, Any],
    topic: str,
    dead: str,
    database: str,
    inbox: Inbox,
    statement: str,
    cause: type[Exception],
) -> None:
    execute(database, statement)
    send(servers.kafka, topic, EVENTS)
    with pytest.raises(HandlerFailed, match="other events would fail alike") as failed:
        Consumer(kafka, [topic], write, inbox=inbox, connect=Connecting(database), dead_letter=dead, retry=RETRY).run()
    assert isinstance(failed.value.__cause__, cause)
    assert failed.value.offset == 0
    assert ends(servers.kafka, dead) == [0]
    assert committed(servers.kafka, kafka["group.id"], topic)[0] < 0


@pytest.mark.parametrize("table", ["inbox", "applied"])
def test_case_h3_a_missing_privilege_ends_the_consumer(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str, database: str, inbox: Inbox, table: str
) -> None:
    other = "applied" if table == "inbox" else "inbox"
    role = f"role_{topic.replace('-', '_')}"
    execute(database, f"create role {role}")
    try:
        execute(database, f"grant all on {other} to {role}; grant all on sequence applied_nr_seq to {role}")
        connect = Connecting(database)
        send(servers.kafka, topic, EVENTS)

        def in_role() -> "psycopg.Connection[Any]":
            made = connect()
            made.autocommit = True
            made.execute(f"set role {role}".encode())
            made.autocommit = False
            return made

        with pytest.raises(HandlerFailed, match=f"permission denied for table {table}"):
            Consumer(kafka, [topic], write, inbox=inbox, connect=in_role, dead_letter=dead, retry=RETRY).run()
    finally:
        execute(database, f"drop owned by {role}; drop role {role}")
    assert ends(servers.kafka, dead) == [0]
    assert committed(servers.kafka, kafka["group.id"], topic)[0] < 0


def test_case_h3_a_connect_that_leaves_a_transaction_open_is_refused(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str, database: str, inbox: Inbox
) -> None:
    send(servers.kafka, topic, EVENTS)
    connect = Connecting(database, "set search_path = public")
    with pytest.raises(ConfigError, match="open transaction; commit in connect"):
        Consumer(kafka, [topic], write, inbox=inbox, connect=connect, dead_letter=dead, retry=RETRY).run()
    assert ends(servers.kafka, dead) == [0]


def framed(number: int) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + b"\x0e"


@pytest.mark.parametrize("fault", ["401", "403"])
def test_case_h3_a_registry_that_refuses_the_consumer_ends_it(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str, fault: Any
) -> None:
    send(servers.kafka, topic, [Sent(1, value=framed(1), partition=0)])
    with Double() as registry:
        registry.fault = fault
        decoder = Decoder(registry_url=registry.url)
        with pytest.raises(HandlerFailed, match=f"HTTP {fault}") as failed:
            Consumer(kafka, [topic], decoding([]), decoder=decoder, dead_letter=dead, retry=RETRY).run()
    assert isinstance(failed.value.__cause__, RegistryError)
    assert ends(servers.kafka, dead) == [0]


def decoding(values: list[Any]) -> Callable[[Event], None]:
    return lambda event: values.append(event.value)


def test_case_h3_an_id_that_the_registry_does_not_know_yet_holds_the_partition(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str
) -> None:
    send(servers.kafka, topic, [Sent(1, value=framed(1), partition=0)])
    values: list[Any] = []
    with Double() as registry:
        consumer = Consumer(
            kafka,
            [topic],
            decoding(values),
            decoder=Decoder(registry_url=registry.url),
            dead_letter=dead,
            retry=RETRY,
            commit_seconds=0.05,
        )
        with Running(consumer) as running:
            running.until(lambda: len(registry.requests) > 8, "it is asked for again and again")
            registry.store.schemas[1] = registry.store.parsed({"schema": json.dumps(CONTRACT)})
            running.until(lambda: committed(servers.kafka, kafka["group.id"], topic) == [1], "it is known")
    assert values == [{"n": 7}]
    assert ends(servers.kafka, dead) == [0]


def test_case_h3_a_registry_that_fails_within_references_holds_the_partition(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str
) -> None:
    send(servers.kafka, topic, [Sent(1, value=framed(2), partition=0)])
    values: list[Any] = []
    with Double() as registry:
        store = registry.store
        whole = {"type": "record", "name": "Whole", "fields": [{"name": "part", "type": "Noted"}]}
        references = [{"name": "Noted", "subject": "noted", "version": 1}]
        store.schemas[1] = store.parsed({"schema": json.dumps(CONTRACT)})
        store.subjects["noted"] = [1]
        store.schemas[2] = store.parsed({"schema": json.dumps(whole), "references": references})
        store.subjects["noted"] = []  # the replica has the schema, and not yet what it refers to
        consumer = Consumer(
            kafka, [topic], decoding(values), decoder=Decoder(registry_url=registry.url), dead_letter=dead, retry=RETRY
        )
        with Running(consumer) as running:
            running.until(lambda: len(registry.requests) > 12, "they are asked for again and again")
            registry.fault = "503"
            asked = len(registry.requests)
            running.until(lambda: len(registry.requests) > asked + 12, "as they are while it is down")
            registry.fault = None
            store.subjects["noted"] = [1]
            running.until(lambda: values == [{"part": {"n": 7}}], "all is known")
    assert ends(servers.kafka, dead) == [0]


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Cancelled(BaseException):
    """As asyncio's CancelledError: no Exception, and no wish to end the program."""


@pytest.mark.parametrize("error", [Silent(), Cancelled("x"), BaseExceptionGroup("g", [Silent(), Cancelled("x")])])
def test_case_h14_any_exception_of_a_handler_is_dead_lettered_or_names_its_event(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str, error: BaseException
) -> None:
    send(servers.kafka, topic, [Sent(1, "bad", partition=0), Sent(2, "k", partition=0)])

    def handle(event: Event) -> None:
        if event.key == b"bad":
            raise error
        handler(event)

    with pytest.raises(HandlerFailed, match=f"for event {Sent(1, 'bad').id} at .*{type(error).__name__}") as failed:
        Consumer(kafka, [topic], handle, retry=RETRY).run()
    assert failed.value.__cause__ is error
    handler = Handler()
    with Running(Consumer(kafka, [topic], handle, dead_letter=dead, retry=RETRY)) as running:
        running.until(lambda: handler.handled == [("k", 2)], "the event behind it")
    (letter,) = read(servers.kafka, dead, 1)
    assert texts(letter)["cdc-error-class"].endswith(type(error).__name__)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_case_h14_an_exception_that_ends_the_program_passes_through(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str, error: BaseException
) -> None:
    send(servers.kafka, topic, [Sent(1, partition=0)])

    def handle(_: Event) -> None:
        raise error

    with pytest.raises(type(error)):
        Consumer(kafka, [topic], handle, dead_letter=dead, retry=RETRY).run()
    assert ends(servers.kafka, dead) == [0]
    assert committed(servers.kafka, kafka["group.id"], topic)[0] < 0

"""The fault proxy on real servers: what it does to connections, and what it makes of the traffic."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.local.stack import Stack
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.torture.behind import before
from tests.torture.connection import Direction, Weather
from tests.torture.kafka_frames import KafkaFrames
from tests.torture.ledger import Ledger
from tests.torture.postgres_frames import PostgresFrames, Tape, error_response, refusal
from tests.torture.proxy import Loop, Proxy
from tests.torture.watch import Unsafe, Watch

Connection = psycopg.Connection[tuple[Any, ...]]


class Road:
    """A proxy before PostgreSQL, and what it has seen."""

    def __init__(self, loop: Loop, dsn: str) -> None:
        address = conninfo_to_dict(dsn)
        self.ledger = Ledger()
        self.watch = Watch()
        self.placed: dict[int, int] = {}
        self.tape = Tape(self.watch, self.placed.__setitem__, lambda unsafe: None)  # noqa: ARG005
        self.proxy = Proxy(loop, (str(address["host"]), int(str(address["port"]))), lambda: PostgresFrames(self.tape))
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self.proxy.port, connect_timeout=5)

    def connect(self) -> Connection:
        return psycopg.connect(self.dsn, autocommit=True)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture
def road(loop: Loop, database: str) -> Iterator[Road]:
    road = Road(loop, database)
    with road.proxy:
        yield road
    assert road.proxy.roads.errors == []


def one(connection: Connection, statement: str = "select 1") -> Any:
    row = connection.execute(statement.encode()).fetchone()
    assert row
    return row[0]


def test_in_good_weather_everything_passes_unchanged(road: Road) -> None:
    with road.connect() as connection:
        text = one(connection, "select string_agg(md5(n::text), '') from generate_series(1, 100000) n")
        assert one(connection, f"select md5('{text}')") == one(
            connection, "select md5(string_agg(md5(n::text), '')) from generate_series(1, 100000) n"
        )
        assert road.proxy.count() == 1


@pytest.mark.parametrize("end", [Proxy.reset, Proxy.finish, Proxy.forsake])
def test_a15_connections_that_are_ended_are_noticed_and_new_ones_pass(road: Road, end: Callable[[Proxy], int]) -> None:
    with road.connect() as broken:
        assert end(road.proxy) == 1
        with pytest.raises(psycopg.OperationalError):
            one(broken)
    with road.connect() as connection:
        assert one(connection) == 1


def test_a15_a_forsaken_server_keeps_its_session_until_the_reset(road: Road, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as observer, road.connect() as forsaken:
        pid = forsaken.info.backend_pid
        road.proxy.forsake()
        time.sleep(0.2)
        alive = f"select count(*) from pg_stat_activity where pid = {pid}"
        assert one(observer, alive) == 1
        road.proxy.reset()
        eventually(lambda: one(observer, alive) == 0, "the end of the session", 10)


@pytest.mark.parametrize("after", [0, 1, 4, 5, 13, 60, 200, 400])
def test_a15_a_connection_can_be_cut_after_any_byte_of_its_handshake(road: Road, after: int) -> None:
    road.proxy.next_budgets.append(after)
    with pytest.raises(psycopg.OperationalError), road.connect() as connection:
        one(connection, "select repeat('x', 1000)")
    assert road.proxy.roads.cuts == 1
    with road.connect() as connection:
        assert one(connection) == 1


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a15_a_running_connection_can_be_cut_inside_of_a_message(road: Road, direction: Any) -> None:
    with road.connect() as connection:
        road.proxy.cut(direction, 40)
        with pytest.raises(psycopg.OperationalError):
            one(connection, f"select '{'x' * 1000}'")
    assert road.proxy.roads.cuts == 1


def waits(road: Road, direction: Any, weather: Weather) -> None:
    """An answer does not come in this weather, and comes whole when it has ended."""
    with road.connect() as connection, ThreadPoolExecutor(1) as pool:
        road.proxy.set(direction, weather)
        answer = pool.submit(one, connection, "select repeat('x', 40000)")
        with pytest.raises(TimeoutError):
            answer.result(timeout=0.3)
        road.proxy.heal()
        assert answer.result(timeout=30) == "x" * 40_000


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a14_in_the_dark_nothing_arrives_until_it_is_healed(road: Road, direction: Any) -> None:
    waits(road, direction, Weather(dark=True))


@pytest.mark.parametrize("weather", [Weather(delay=3600), Weather(rate=20)], ids=["delay", "rate"])
def test_c21_a_slow_network_is_slow_and_whole(road: Road, weather: Weather) -> None:
    waits(road, "down", weather)


def test_c21_a_network_that_passes_single_bytes_leaves_messages_whole(road: Road) -> None:
    with road.connect() as connection:
        road.proxy.set("down", Weather(dribble=True))
        assert one(connection, "select repeat('y', 40000)") == "y" * 40_000


def test_b18_new_connections_can_be_refused_or_told_an_error(road: Road) -> None:
    road.proxy.refusing = True
    with pytest.raises(psycopg.OperationalError):
        road.connect()
    road.proxy.heal()
    road.proxy.answer = refusal("57P03", "the database system is starting up")
    with pytest.raises(psycopg.OperationalError, match="the database system is starting up"):
        road.connect()
    road.proxy.heal()
    with road.connect() as connection:
        assert one(connection) == 1


@pytest.fixture
def proxied(road: Road, pipeline: Pipeline) -> Pipeline:
    """A pipeline that reaches PostgreSQL, but not Kafka, through the proxy."""
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, host="127.0.0.1", port=road.proxy.port)
    return pipeline


def test_i6_a_confirmation_without_an_acknowledgement_that_passed_a_proxy_is_unsafe(
    road: Road, proxied: Pipeline
) -> None:
    running = proxied.start().streams()
    proxied.insert(1, 2, 3)
    proxied.settles()
    assert running.stop() == 0
    (finding,) = road.watch.violations
    assert isinstance(finding, Unsafe)
    assert finding.missing == 3
    (record, *_) = proxied.judge()
    assert f"-{finding.commit_lsn:016X}-" in record.position


def test_each_transaction_is_placed_by_its_xid(road: Road, proxied: Pipeline) -> None:
    running = proxied.start().streams()
    with proxied.connect() as connection:
        for seq in range(3):
            with connection.transaction():
                xid = one(connection, "select pg_current_xact_id()::text")
                connection.execute(
                    "insert into outbox (aggregatetype, aggregateid, type, payload)"
                    f" values ('note', 'xid-{xid}', 'Noted', '{{\"seq\": {seq}}}')".encode()
                )
    proxied.settles()
    assert running.stop() == 0
    placed = {f"xid-{xid}": lsn for xid, lsn in road.placed.items()}
    assert {r.key: int(r.position.split("-")[1], 16) for r in proxied.records()}.items() <= placed.items()


def test_a10_a_keepalive_can_be_said_between_two_messages_and_is_answered(road: Road, proxied: Pipeline) -> None:
    running = proxied.start().streams()
    proxied.insert(1)
    proxied.settles()
    before = road.watch.statuses

    def keepalive(frames: PostgresFrames) -> bytes | None:
        return frames.keepalive() if frames.is_stream else None

    assert road.proxy.insert(keepalive) == 1
    eventually(lambda: road.watch.statuses > before, "an answer", 5)
    assert running.stop() == 0


def test_a22_an_error_of_the_server_can_end_the_stream(road: Road, proxied: Pipeline) -> None:
    running = proxied.start().streams()
    error = error_response("XX000", "could not find record")
    assert road.proxy.insert(lambda frames: error if frames.is_stream else None, last=True) == 1
    running.logs("could not find record")
    eventually(lambda: road.tape.sessions == 2, "another session")
    proxied.insert(1)
    proxied.settles()
    assert running.stop() == 0
    proxied.judge()


@pytest.fixture
def both(loop: Loop, private_stack: Callable[..., Stack], tmp_path: Path) -> Iterator[tuple[Road, Proxy, Pipeline]]:
    """A pipeline of which both ends are behind proxies."""
    stack: Stack = private_stack(kafka=None)
    (broker,) = stack.brokers
    road = Road(loop, stack.postgres.dsn)
    with ExitStack() as ends:
        proxy = ends.enter_context(before(loop, broker, lambda: KafkaFrames(road.tape, {})))
        ends.enter_context(road.proxy)
        broker.start()
        pipeline = prepare(make_pipeline(stack.postgres.dsn, broker.address, "t-", tmp_path))
        pipeline.settings["postgres"]["dsn"] = road.dsn
        pipeline.settings["kafka"] = {
            "bootstrap.servers": f"127.0.0.1:{proxy.port}",
            "compression.type": "none",
        }
        ends.callback(pipeline.close)
        yield road, proxy, pipeline
    assert (road.proxy.roads.errors, proxy.roads.errors) == ([], [])


def test_a1_acknowledgements_are_read_off_the_wire_and_can_be_held_back(both: tuple[Road, Proxy, Pipeline]) -> None:
    road, proxy, pipeline = both
    running = pipeline.start().streams()
    pipeline.insert(*range(500))
    pipeline.settles()
    assert (road.watch.unacknowledged, road.watch.violations) == (0, [])
    assert road.watch.acknowledgements == 500

    def held(frames: Any, frame: bytes) -> bool:
        return isinstance(frames, KafkaFrames) and frames.is_produced(frame)

    proxy.set("down", Weather(held=held))
    pipeline.insert(500)
    eventually(lambda: road.watch.unacknowledged == 1, "the transaction")
    end = pipeline.wal_end()
    time.sleep(1.5)
    assert pipeline.confirmed() < end
    proxy.heal()
    pipeline.settles()
    assert running.stop() == 0
    assert (road.watch.unacknowledged, road.watch.violations) == (0, [])
    pipeline.judge(duplicates=False)


def test_c2_produce_responses_that_are_lost_are_not_acknowledgements(both: tuple[Road, Proxy, Pipeline]) -> None:
    road, proxy, pipeline = both
    running = pipeline.start().streams()
    pipeline.insert(0)
    pipeline.settles()
    acknowledged = road.watch.acknowledgements
    partition = ("t-note", pipeline.records()[0].partition)

    def held(frames: Any, frame: bytes) -> bool:
        return isinstance(frames, KafkaFrames) and frames.is_produced(frame, partition)

    proxy.set("down", Weather(held=held))
    pipeline.insert(1)
    eventually(lambda: len(pipeline.records()) == 2, "the record in the topic")
    assert road.watch.acknowledgements == acknowledged
    proxy.reset()
    proxy.heal()
    pipeline.settles()
    assert road.watch.acknowledgements == acknowledged + 1
    assert running.stop() == 0
    assert road.watch.violations == []
    pipeline.judge(duplicates=False)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_c18_a_commit_of_which_nobody_heard_counts_once_it_is_read_back(
    both: tuple[Road, Proxy, Pipeline], lost: str
) -> None:
    road, proxy, pipeline = both
    pipeline.settings["delivery"] = {"guarantee": "exactly-once", "sequence": True}
    running = pipeline.start().streams()
    pipeline.insert(0)
    pipeline.settles()
    direction: Direction = "up" if lost == "request" else "down"

    def held(frames: Any, frame: bytes) -> bool:
        ended = frames.ending(frame, direction) if isinstance(frames, KafkaFrames) else None
        return bool(ended and ended.transaction and ended.transaction.positions)

    proxy.set(direction, Weather(held=held))
    pipeline.insert(1)
    eventually(lambda: count_all(pipeline) == 2, "the record in the topic")
    if lost == "answer":
        eventually(lambda: len(pipeline.records()) == 2, "the commit")
    end = pipeline.wal_end()
    running.kill()
    assert pipeline.confirmed() < end
    assert (road.watch.unacknowledged, road.watch.violations) == (1, [])
    proxy.reset()
    proxy.heal()
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert road.tape.commits.read_back == (lost == "answer")
    assert (road.watch.unacknowledged, road.watch.violations) == (0, [])
    records = pipeline.judge(duplicates=False)
    assert [record.header("cdc-sequence") for record in records] == ["1", "2"]


def count_all(pipeline: Pipeline) -> int:
    """How many different events are in the topic, also in a transaction that is not committed."""
    given = {"bootstrap.servers": pipeline.kafka, "group.id": "all", "isolation.level": "read_uncommitted"}
    consumer = Consumer({**given, "enable.auto.commit": False, "enable.partition.eof": True})
    found = set()
    try:
        reading = set(consumer.list_topics(pipeline.topic, timeout=30).topics[pipeline.topic].partitions)
        consumer.assign([TopicPartition(pipeline.topic, number, OFFSET_BEGINNING) for number in reading])
        while reading:
            for message in consumer.consume(1000, 1):
                if message.error():
                    reading.discard(message.partition())
                else:
                    found.add(dict(message.headers() or [])["id"])
    finally:
        consumer.close()
    return len(found)

"""The examples of docs/consumer.md with a real publisher."""

import contextlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from cdc.consumer import Consumer, Event, Gap, GapDetector, Inbox, Rejected, Verdict
from cdc.demo.shop import Order, Till
from cdc.demo.shop import ShopEvent as Row
from tests import ROOT
from tests.consuming import APPLIED, Running, Sent, applied, ends, make_topic, read, send, texts
from tests.pipeline import PATIENCE, Pipeline, eventually
from tests.servers import Servers


@contextlib.contextmanager
def running(log: Path, example: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run an example, and stop it with SIGTERM, as an orchestrator does; it must exit with 0."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / example), *arguments], stdout=output, stderr=output
        )
    try:
        yield process
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a table; none while it does not exist."""
    with psycopg.connect(dsn) as connection, contextlib.suppress(psycopg.errors.UndefinedTable):
        return connection.execute(statement.encode()).fetchall()
    return []


@pytest.fixture
def shop(pipeline: Pipeline) -> Pipeline:
    """Create the shop's topics, and start a publisher."""
    pipeline.settings["avro"]["schemas"] = str(ROOT / "schemas" / "shop")
    for name in ("order", "payment"):
        pipeline.create_topic(f"{pipeline.prefix}{name}")
    pipeline.start().streams()
    return pipeline


def publish(shop: Pipeline, events: list[Row]) -> None:
    with shop.connect() as connection, connection.transaction():
        connection.cursor().executemany(
            "insert into outbox (id, aggregatetype, aggregateid, type, payload) values (%s, %s, %s, %s, %s)",
            [(event.id, event.aggregate, event.key, event.type, event.payload) for event in events],
        )


def sell(till: Till, count: int) -> tuple[list[Order], list[Row]]:
    orders, events = [], []
    for number in range(count):
        order, placed = till.order(parts=2)
        orders.append(order)
        events += (
            [placed, till.cancel(order)] if number % 4 == 0 else [placed, till.capture(order), till.capture(order)]
        )
    return orders, events


def test_the_orders_example_applies_each_order_once(shop: Pipeline, tmp_path: Path) -> None:
    arguments = ["--dsn", shop.dsn, "--kafka", shop.kafka, "--topic", f"{shop.prefix}order"]
    arguments += ["--schemas", str(ROOT / "schemas" / "shop")]
    till, orders = Till(6), list[Order]()

    def applied() -> bool:
        cancelled = rows(shop.dsn, "select from orders where status = 'cancelled'")
        return len(rows(shop.dsn, "select from orders")) == len(orders) and len(cancelled) == len(orders) // 4

    for _ in range(2):
        sold, events = sell(till, 20)
        orders += sold
        publish(shop, events)
        with running(tmp_path / "orders.log", "orders.py", *arguments):
            eventually(applied, "every order is there")
    totals: dict[str, Decimal] = {str(order): total for order, total in rows(shop.dsn, "select id, total from orders")}
    assert totals == {order.id: order.total for order in orders}
    assert rows(shop.dsn, "select consumer, count(*) from inbox group by 1") == [("orders", 50)]


def test_the_service_example_counts_each_payment_once(shop: Pipeline, tmp_path: Path) -> None:
    arguments = ["--dsn", shop.dsn, "--kafka", shop.kafka, "--topic", f"{shop.prefix}payment"]
    arguments += ["--schemas", str(ROOT / "schemas" / "shop")]
    _, events = sell(Till(7), 20)
    publish(shop, events)
    payments = [event for event in events if event.type == "PaymentCaptured"]
    expected = Counter(
        method for event in payments for method in ("CARD", "TRANSFER", "WALLET") if method in event.payload
    )
    with running(tmp_path / "service.log", "service.py", *arguments):
        eventually(lambda: dict(rows(shop.dsn, "select * from payments")) == expected, "every payment is counted")
    assert sum(expected.values()) == len(payments) == 30


def test_the_watching_example_detects_deleted_copied_and_swapped_records(
    servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    topic, log = make_topic(servers.kafka, f"{topic_prefix}events"), tmp_path / "watch.log"
    sound = [Sent(100 + number, number=number) for number in range(1, 31)]
    deleted, copied, swapped = sound[9], sound[14], sound[20]
    damaged = [record for record in sound if record not in (deleted, swapped)]
    damaged.insert(damaged.index(sound[21]) + 1, swapped)
    damaged.insert(damaged.index(sound[17]), copied)
    send(servers.kafka, topic, damaged)

    def alarms() -> list[str]:
        return [line for line in log.read_text().split("\n")[:-1] if line.startswith("ALARM")]

    with running(log, "watch_gaps.py", "--kafka", servers.kafka, topic):
        eventually(lambda: len(alarms()) >= 4, "four alarms")
        send(servers.kafka, topic, [Sent(200, number=33)])
        eventually(lambda: len(alarms()) >= 5, "and the fifth, which shows that there is none between")
    assert [line.partition(f"ALARM {topic}[0]@")[2] for line in alarms()] == [
        f"9 event {sound[10].id}: number 10 is missing",
        f"16 event {copied.id}: a duplicate of offset 13",
        f"20 event {sound[21].id}: number 21 is missing",
        f"21 event {swapped.id}: after position {dict(sound[21].all_headers)['cdc-position']!s}, which is later",
        f"30 event {Sent(200).id}: numbers 31 to 32 are missing",
    ]


def test_a_restored_detector_reports_records_deleted_while_it_was_stopped(servers: Servers, topic_prefix: str) -> None:
    topic = make_topic(servers.kafka, f"{topic_prefix}events")
    kafka = {"bootstrap.servers": servers.kafka, "group.id": f"{topic_prefix}group"}
    send(servers.kafka, topic, [Sent(100 + number, number=number) for number in range(1, 13)])
    states: list[dict[str, Any]] = []

    def consume(detector: GapDetector, until: int) -> None:
        def handle(event: Event) -> None:
            if event.sequence == until:
                states.append(detector.state())
                consumer.stop()

        consumer = Consumer(kafka, [topic], handle, detector=detector)
        consumer.run()

    consume(GapDetector(), 5)
    admin = AdminClient({"bootstrap.servers": servers.kafka})
    for future in admin.delete_records([TopicPartition(topic, 0, 9)]).values():
        assert future.result().low_watermark == 9
    gaps: list[Gap] = []
    detector = GapDetector()
    detector.restore(states[0])
    detector.on(Gap, gaps.append)
    consume(detector, 12)
    assert [(gap.expected, gap.found, gap.offset) for gap in gaps] == [(6, 10, 9)]


def test_case_h16_the_replay_example_sends_each_dead_letter_once_to_its_consumer_only(
    servers: Servers, topic_prefix: str, database: str
) -> None:
    bootstrap = servers.kafka
    topic, dead, retry = (make_topic(bootstrap, f"{topic_prefix}{name}", 2) for name in ("events", "dead", "retry"))
    send(bootstrap, topic, [Sent(lsn, "bad" if lsn % 2 else "good", number=lsn) for lsn in range(1, 21)])
    inbox, fixed = Inbox("tests"), [False]
    with psycopg.connect(database) as connection:
        inbox.create(connection)
        connection.execute(APPLIED)

    def handle(event: Event, connection: "psycopg.Connection[Any]") -> None:
        if event.key == b"bad" and not fixed[0]:
            raise Rejected("not yet")
        assert event.position
        connection.execute("insert into applied (id, seq) values (%s, %s)", [event.id, event.position.commit_lsn])

    def consumer() -> Running:
        kafka = {"bootstrap.servers": bootstrap, "group.id": f"{topic_prefix}group"}
        return Running(
            Consumer(
                kafka,
                [topic, retry],
                handle,
                inbox=inbox,
                connect=lambda: psycopg.connect(database),
                dead_letter=dead,
                detector=detector,
            )
        )

    def replay() -> str:
        command = [sys.executable, str(ROOT / "examples" / "replay.py"), "--kafka", bootstrap]
        done = subprocess.run([*command, "--dead-letter", dead, "--to", retry], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    detector, verdicts = GapDetector(), list[Verdict]()
    detector.on(Verdict, verdicts.append)
    with consumer() as running_consumer:
        running_consumer.until(lambda: sum(ends(bootstrap, dead, 2)) == 10, "half of them are dead letters")
        running_consumer.until(lambda: len(applied(database)) == 10, "the others are applied")
    assert replay() == f"sent 10 dead letters to {retry}\n"
    assert replay() == f"sent 0 dead letters to {retry}\n"
    fixed[0] = True
    verdicts.clear()
    with consumer() as running_consumer:
        running_consumer.until(lambda: len(applied(database)) == 20, "all are applied")
    assert sorted(seq for _, _, seq in applied(database)) == list(range(1, 21))
    assert {type(verdict).__name__ for verdict in verdicts} == {"Replayed"}
    (first, *_) = read(bootstrap, retry, 10)
    headers = texts(first)
    assert headers["cdc-replayed-from"] == topic
    assert not [name for name in headers if name.startswith("cdc-error-")]

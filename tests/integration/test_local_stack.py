"""The local stack with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from cdc.errors import LocalStackError
from cdc.local import accounts, packages
from cdc.local.kafka import Node, properties
from cdc.local.ports import Ports, is_free
from cdc.local.postgres import PostgresServer
from cdc.local.stack import Stack
from tests.pipeline import eventually
from tests.servers import PrivatePostgres, PrivateStack

COMMAND = [sys.executable, "-m", "cdc", "local"]


def processes_of(home: Path) -> list[psutil.Process]:
    """All processes that name `home`, or the shelter of its PostgreSQL, in their command line or work in there."""
    names = (str(home), str(accounts.shelter(home / "postgres")))
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + " " + process.cwd()
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(name in text for name in names):
            found.append(process)
    return found


@pytest.fixture
def home(folder: Path) -> Iterator[Path]:
    """A home for one stack; purged afterwards."""
    yield folder / "home"
    Stack(folder / "home").down(purge=True)


def run(*arguments: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments, "--home", str(home)], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_second_up_gives_the_same_addresses_and_both_servers_work(home: Path) -> None:
    first = run("up", "--json", home=home)
    second = run("up", "--json", home=home)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    facts = json.loads(first.stdout)
    assert json.loads(second.stdout) == facts
    assert facts["kafka"]["brokers"] == 1
    assert Path(facts["postgres"]["log"]).exists()
    with psycopg.connect(facts["postgres"]["dsn"], autocommit=True) as connection:
        assert connection.execute("show wal_level").fetchone() == ("logical",)
        assert connection.execute("show fsync").fetchone() == ("on",)
    produce(facts["kafka"]["bootstrap_servers"], "letters", "a")

    refused = run("up", "--brokers", "3", home=home)
    assert refused.returncode == 1
    assert "has 1 broker" in refused.stderr
    assert "down --purge" in refused.stderr

    assert run("down", home=home).returncode == 0
    assert processes_of(home) == []
    again = run("down", "--purge", home=home)
    assert (again.returncode, "nothing was running" in again.stderr) == (0, True)
    assert not home.exists()
    assert not accounts.shelter(home / "postgres").exists()


def test_servers_that_crashed_come_back_on_the_same_ports_with_their_data(private_stack: PrivateStack) -> None:
    stack = private_stack()
    addresses = stack.addresses()
    assert addresses is not None
    produce(addresses.kafka, "letters", "a", "b")
    with psycopg.connect(addresses.postgres, autocommit=True) as connection:
        connection.execute("create table letters as select 'a' as letter")
    assert stack.postgres.kill()
    assert stack.brokers[0].kill()
    assert stack.addresses() is None
    assert stack.up() == addresses
    assert end_offset(addresses.kafka, "letters") == 2
    with psycopg.connect(addresses.postgres, autocommit=True) as connection:
        assert connection.execute("select letter from letters").fetchall() == [("a",)]


def test_a_port_taken_by_another_program_is_replaced(home: Path) -> None:
    ports, foreign = Ports(home / "ports.json"), socket.socket()
    with foreign:
        stack = Stack(home)
        stack.up()
        old = stack.brokers[0].node.port
        stack.down()
        foreign.bind(("127.0.0.1", old))
        foreign.listen()
        stack.up()
        assert ports.get("kafka-1") != old
        assert stack.addresses() is not None


# Seconds after the start of `up`: before its servers, in initdb and the formatting, while Kafka starts.
@pytest.mark.parametrize("moment", [0.35, 0.7, 1.2, 2.2])
def test_down_stops_the_servers_of_a_killed_up(home: Path, moment: float) -> None:
    with subprocess.Popen([*COMMAND, "up", "--home", str(home)], stderr=subprocess.DEVNULL) as up:
        time.sleep(moment)
        up.kill()
    assert run("down", home=home).returncode == 0
    assert processes_of(home) == []


def test_up_completes_what_a_killed_up_began(home: Path) -> None:
    for moment in (0.5, 0.9, 1.5):
        with subprocess.Popen([*COMMAND, "up", "--home", str(home)], stderr=subprocess.DEVNULL) as up:
            time.sleep(moment)
            up.kill()
    done = run("up", "--json", home=home)
    assert done.returncode == 0, done.stderr
    produce(json.loads(done.stdout)["kafka"]["bootstrap_servers"], "letters", "a")
    leaders = [process for process in processes_of(home) if "-D" in process.cmdline() or "java" in process.name()]
    assert len(leaders) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [0.1, 1.0])  # seconds after it began to work: in initdb, while Kafka starts
def test_ctrl_c_during_up_leaves_no_process(home: Path, number: signal.Signals, moment: float) -> None:
    with subprocess.Popen([*COMMAND, "up", "--home", str(home)], stderr=subprocess.PIPE, text=True) as up:
        eventually((home / "stack.json").exists, "it takes the home")
        time.sleep(moment)
        up.send_signal(number)
        _, complaint = up.communicate(timeout=60)
    assert up.returncode == 130, complaint
    assert complaint.splitlines()[-1] == "cdc-publisher: aborted"
    assert processes_of(home) == []


def test_two_ups_at_once_start_one_stack(home: Path) -> None:
    ups = [
        subprocess.Popen(
            [*COMMAND, "up", "--json", "--home", str(home)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    answers = [up.communicate(timeout=120)[0] for up in ups]
    assert [up.returncode for up in ups] == [0, 0]
    assert json.loads(answers[0]) == json.loads(answers[1])


def test_three_brokers_form_a_cluster_that_survives_the_death_of_one(
    private_stack: PrivateStack,
) -> None:
    stack = private_stack(brokers=3)
    addresses = stack.addresses()
    assert addresses is not None
    produce(addresses.kafka, "letters", "a")
    admin = AdminClient({"bootstrap.servers": addresses.kafka, "log_level": 0})
    metadata = admin.list_topics(timeout=10)
    assert sorted(metadata.brokers) == [1, 2, 3]
    assert len(metadata.topics["letters"].partitions[0].replicas) == 3
    resource = ConfigResource(ResourceType.TOPIC, "letters")
    assert admin.describe_configs([resource])[resource].result()["min.insync.replicas"].value == "2"
    frozen, killed = stack.brokers[1], stack.brokers[2]
    frozen.freeze()
    assert psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED
    frozen.thaw()
    assert psutil.Process(frozen.pid).status() != psutil.STATUS_STOPPED
    killed.kill()
    assert stack.addresses() is None
    produce(addresses.kafka, "letters", "b")
    killed.start()
    assert stack.addresses() == addresses
    assert end_offset(addresses.kafka, "letters") == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another account")
def test_home_and_programs_may_be_inaccessible_to_the_other_account(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.chmod(0o700)
    wheel = packages.postgres()
    for name in (wheel.name, f"{wheel.name}.libs"):
        subprocess.run(["cp", "-r", str(wheel.with_name(name)), str(folder / name)], check=True)
    monkeypatch.setattr(packages, "postgres", lambda: folder / wheel.name)
    server = PostgresServer(folder / "home")
    try:
        server.start()
        assert not server.data.is_relative_to(folder)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        server.purge()
    assert not accounts.shelter(folder / "home").exists()


def test_a_private_server_accepts_settings_and_reports_why_it_does_not_start(private_postgres: PrivatePostgres) -> None:
    server = private_postgres(settings={"wal_sender_timeout": "1s"})
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        assert connection.execute("show wal_sender_timeout").fetchone() == ("1s",)
    with pytest.raises(LocalStackError, match="no_such_setting"):
        private_postgres(settings={"no_such_setting": "1"})


def test_a_folder_with_other_things_in_it_is_left_alone(folder: Path) -> None:
    (folder / "thesis.txt").write_text("years of work")
    (folder / "postgres").mkdir()
    with pytest.raises(LocalStackError, match="not empty"):
        Stack(folder).up()
    Stack(folder).down(purge=True)
    assert (folder / "thesis.txt").exists()
    assert (folder / "postgres").exists()


def test_an_unrelated_process_that_mentions_the_folder_is_not_touched(home: Path) -> None:
    with subprocess.Popen(["tail", "-f", "/dev/null", "--", str(home / "postgres" / "data")]) as other:
        Stack(home).down(purge=True)
        assert other.poll() is None
        other.kill()


def test_the_properties_of_one_broker_ask_for_one_replica() -> None:
    node = Node(1, 9092, 9093)
    made = properties(node, [node], Path("/data"))
    assert made["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert made["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9092"
    assert made["transaction.state.log.replication.factor"] == made["min.insync.replicas"] == "1"
    assert made["auto.create.topics.enable"] == "false"


def test_the_properties_of_three_brokers_ask_for_three_replicas_and_two_in_sync() -> None:
    nodes = [Node(n, 9090 + n, 9080 + n) for n in (1, 2, 3)]
    made = properties(nodes[1], nodes, Path("/data"), advertised="127.0.0.1:7002")
    assert made["controller.quorum.voters"] == "1@127.0.0.1:9081,2@127.0.0.1:9082,3@127.0.0.1:9083"
    assert made["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9082"
    assert made["advertised.listeners"] == "PLAINTEXT://127.0.0.1:7002"
    assert (made["default.replication.factor"], made["min.insync.replicas"]) == ("3", "2")
    assert made["replica.lag.time.max.ms"] == "3000"


def test_ports_are_remembered_and_free(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json")
    assert ports.known("a") is None
    first = ports.get("a")
    assert is_free(first)
    assert Ports(tmp_path / "ports.json").get("a") == first
    assert ports.get("b") != first
    assert ports.renew("a") != first


def test_a_damaged_jar_is_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "cache", lambda: tmp_path)
    jar = tmp_path / "jars" / "kafka.jar"
    jar.parent.mkdir()
    jar.write_bytes(b"whole")
    index = tmp_path / "jars" / f"kafka-{packages.KAFKA_VERSION}.json"
    index.write_text(json.dumps({"coordinates": list(packages.COORDINATES), "jars": {"kafka.jar": 5}}))
    assert packages.kafka() == [jar]
    jar.write_bytes(b"")
    monkeypatch.setattr("cdc.local.maven.MAVEN_CENTRAL_URL", "http://127.0.0.1:9/maven2")
    with pytest.raises(LocalStackError, match="cannot download Apache Kafka"):
        packages.kafka()
    assert not jar.exists()


def produce(servers: str, topic: str, *values: str) -> None:
    """Send to `topic`, which is created when it does not exist, and wait for the confirmations."""
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    if topic not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(topic, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "log_level": 0})
    failures: list[object] = []
    for value in values:
        producer.produce(topic, value.encode(), on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(30) == 0
    assert failures == [None] * len(values)


def end_offset(servers: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "offsets", "log_level": 0})
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
        return int(high)
    finally:
        consumer.close()

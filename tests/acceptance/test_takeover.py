"""Take-overs from a real Debezium under load, and the way back: nothing lost, repeated or reordered."""

import contextlib
import json
import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.debezium import Connect
from tests.pipeline import Pipeline, eventually
from tests.reader import Received, read_all
from tests.servers import Servers

pytestmark = [
    pytest.mark.debezium,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        "CDC_TEST_NIGHTLY" not in os.environ, reason="downloads Kafka Connect and Debezium: make nightly"
    ),
]

PARTITIONS = 4
KEYS = 40
TABLE = """
create table outbox (id uuid primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
  type varchar(255) not null, payload bytea, seq bigint not null)
"""


class Writers:
    """Two writers that insert 200 rows a second until they are stopped; a tenth of transactions is rolled back.

    Each key has one writer, which counts its events. A writer that fell behind catches up.
    """

    def __init__(self, dsn: str, every: float = 0.018) -> None:
        self._dsn = dsn
        self._every = every  # seconds from one transaction of a writer, two rows on average, to its next
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(2)]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        chance, seqs = random.Random(number), Counter[int]()
        with psycopg.connect(self._dsn) as connection:
            due = time.monotonic()
            while not self._stop.wait(max(0, due - time.monotonic())):
                due += self._every
                key = chance.randrange(KEYS // 2) * 2 + number
                rows = [(uuid.uuid4(), f"k{key}", seqs[key] + n) for n in range(1, chance.randrange(1, 4) + 1)]
                with connection.cursor() as cursor:
                    cursor.executemany(
                        "insert into outbox values (%s, 'note', %s, 'Noted', %s, %s)",
                        [(row, at, seq.to_bytes(8), seq) for row, at, seq in rows],
                    )
                if chance.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
                    seqs[key] += len(rows)


@pytest.fixture(scope="module")
def connects() -> Iterator[dict[float, Connect]]:
    """Workers by how often they store offsets, in seconds; started when they are asked for."""
    started: dict[float, Connect] = {}
    yield started
    for connect in started.values():
        connect.stop()


@pytest.fixture
def worker(
    connects: dict[float, Connect], servers: Servers, tmp_path_factory: pytest.TempPathFactory, request: Any
) -> Connect:
    """A worker that runs."""
    flush = getattr(request, "param", 2.0)
    if flush not in connects:
        folder = tmp_path_factory.mktemp("connect")
        connects[flush] = Connect(folder, servers.kafka, uuid.uuid4().hex[:8], flush)
    if not connects[flush].runs:
        connects[flush].start()
    return connects[flush]


@pytest.fixture
def outbox(bare_pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A database with an outbox that Debezium reads, and settings for the publisher."""
    monkeypatch.chdir(tmp_path)  # the take-over saves offsets there
    bare_pipeline.sql(TABLE)
    bare_pipeline.settings["postgres"]["publication"] = f"pub_{bare_pipeline.slot}"
    bare_pipeline.create_topic(bare_pipeline.topic, PARTITIONS)
    return bare_pipeline


def connector(pipeline: Pipeline, **more: str) -> dict[str, str]:
    """The connector of a pipeline, as a user has it."""
    address = conninfo_to_dict(pipeline.dsn)
    router = "transforms.outbox."
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "database.hostname": str(address.get("host", "127.0.0.1")),
        "database.port": str(address.get("port", 5432)),
        "database.user": str(address.get("user", "postgres")),
        "database.password": str(address.get("password") or "none"),
        "database.dbname": str(address["dbname"]),
        "topic.prefix": pipeline.slot,
        "table.include.list": "public.outbox",
        "slot.name": pipeline.slot,
        "publication.name": str(pipeline.settings["postgres"]["publication"]),
        "publication.autocreate.mode": "filtered",
        "snapshot.mode": "no_data",
        "transforms": "outbox",
        f"{router}type": "io.debezium.transforms.outbox.EventRouter",
        f"{router}route.topic.replacement": f"{pipeline.prefix}${{routedByValue}}",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def records(pipeline: Pipeline) -> list[Received]:
    return read_all(pipeline.kafka, pipeline.prefix, lambda value: int.from_bytes(value))


def judge(pipeline: Pipeline) -> dict[str, int]:
    """Compare table and topic; each event has one record, in its key's order; returns the records of each program."""
    expected = {str(row): (key, seq) for row, key, seq in pipeline.sql("select id, aggregateid, seq from outbox")}
    found = [record for record in records(pipeline) if record.topic == pipeline.topic]
    times = Counter(record.id for record in found)
    assert not expected.keys() - times.keys(), f"{len(expected.keys() - times.keys())} lost"
    assert not times.keys() - expected.keys(), "phantoms"
    assert not [each for each, count in times.items() if count > 1], f"{len(found) - len(times)} duplicates"
    by_key: dict[str, list[Received]] = {}
    for record in found:
        by_key.setdefault(record.key, []).append(record)
    for key, events in by_key.items():
        assert len({event.partition for event in events}) == 1, key
        assert [expected[event.id][1] for event in events] == sorted(expected[event.id][1] for event in events), key
    ours = sum("cdc-position" in dict(record.headers) for record in found)
    return {"ours": ours, "theirs": len(found) - ours}


def has_sent(pipeline: Pipeline, least: int = 30) -> None:
    eventually(lambda: len(records(pipeline)) >= least, "records of Debezium", 240)


def take_over(pipeline: Pipeline, *arguments: str) -> None:
    done = pipeline.process("takeover", "run", *arguments)
    assert done.process.wait(600) == 0, done.messages()
    assert any("proven" in line or "nothing to take over" in line for line in done.messages())


def give_back(pipeline: Pipeline, url: str) -> None:
    done = pipeline.process("takeover", "undo", url)
    assert done.process.wait(600) == 0, done.messages()


def killed(pipeline: Pipeline, message: str, *arguments: str) -> None:
    """Run a command, and kill it when it has printed a message, unless it has nothing more to do."""
    running = pipeline.process("takeover", *arguments)
    eventually(lambda: bool(running.count(message)) or running.process.poll() == 0, message, 240)
    running.kill()


@contextlib.contextmanager
def publishing(pipeline: Pipeline) -> Iterator[None]:
    """The publisher runs; at the end it has sent everything."""
    running = pipeline.start().streams()
    yield
    pipeline.settles()
    assert running.stop() == 0, running.log


def catches_up(pipeline: Pipeline) -> None:
    """Wait until Debezium has sent all that is in the table."""
    ((rows,),) = pipeline.sql("select count(*) from outbox")
    eventually(lambda: len(records(pipeline)) >= rows, f"{rows} records", 240)


@pytest.fixture(params=["at-least-once", "exactly-once"])
def guarantee(request: Any, outbox: Pipeline) -> str:
    """Each guarantee in turn, in the settings."""
    outbox.settings["delivery"] = {"guarantee": request.param}
    return str(request.param)


@pytest.mark.usefixtures("guarantee")
def test_a_takeover_under_load_and_its_undo_lose_repeat_and_reorder_nothing(outbox: Pipeline, worker: Connect) -> None:
    url = f"{worker.url}/connectors/{outbox.slot}"
    worker.create(outbox.slot, connector(outbox))
    with Writers(outbox.dsn):
        has_sent(outbox)
        for _ in range(3):  # while much of the WAL is not flushed; a logical message would end Debezium's task
            compared = outbox.run("takeover", "compare")
            assert compared.returncode == 0, compared.stdout + compared.stderr
        take_over(outbox, url)
        with publishing(outbox):
            time.sleep(20)
        give_back(outbox, url)
        time.sleep(20)
    catches_up(outbox)
    saved = json.loads(Path(f"takeover-{outbox.slot}.json").read_text())
    assert saved["options"]["database.password"] == "********"
    assert saved["offsets"][0]["offset"]["lsn"] > 0
    found = judge(outbox)
    assert min(found.values()) > 0, found


@pytest.mark.usefixtures("guarantee")
@pytest.mark.parametrize("worker", [60.0], indirect=True)
def test_a_takeover_after_a_crash_of_connect_repeats_nothing(outbox: Pipeline, worker: Connect) -> None:
    worker.create(outbox.slot, connector(outbox))
    with Writers(outbox.dsn):
        has_sent(outbox)
        time.sleep(45)
        worker.kill()  # long before it would have confirmed what it sent
        refused = outbox.start()
        assert refused.process.wait(600) == 1, refused.messages()
        assert "takeover run" in refused.messages()[-1]
        killed(outbox, "publishing until", "run", "--stop", "manual")
        take_over(outbox, "--stop", "manual")
    with publishing(outbox):
        pass
    found = judge(outbox)
    assert min(found.values()) > 0, found


RUN = ("saved the offsets", "waiting until Debezium", "stopped connector", "have not changed", "recorded that")
UNDO = ("publishing until", "set the offsets", "deleted the record", "resumed connector")


def test_a_takeover_and_an_undo_that_are_killed_at_each_step_are_continued(outbox: Pipeline, worker: Connect) -> None:
    url = f"{worker.url}/connectors/{outbox.slot}"
    worker.create(outbox.slot, connector(outbox))
    with Writers(outbox.dsn):
        has_sent(outbox)
        killed(outbox, "have not changed", "run", url)
        give_back(outbox, url)  # which leaves the offsets alone: the slot stands before them
        for step in RUN:
            killed(outbox, step, "run", url)
        take_over(outbox, url)
        for step in UNDO:
            killed(outbox, step, "undo", url)
        give_back(outbox, url)
    catches_up(outbox)
    judge(outbox)


def test_a_takeover_refuses_rows_that_do_not_encode_and_changes_nothing(outbox: Pipeline, worker: Connect) -> None:
    url = f"{worker.url}/connectors/{outbox.slot}"
    outbox.sql("alter table outbox alter payload type jsonb using null")
    worker.create(outbox.slot, connector(outbox, value__converter="org.apache.kafka.connect.storage.StringConverter"))
    outbox.sql("insert into outbox values (gen_random_uuid(), 'note', 'k', 'Unknown', '{}', 1)")
    has_sent(outbox, 1)
    refused = outbox.process("takeover", "run", url)
    assert refused.process.wait(600) == 1, refused.messages()
    assert "1 of the last events cannot be published" in refused.messages()[-1]
    assert worker.state(outbox.slot) == ("RUNNING", ["RUNNING"])
    compared = outbox.run("takeover", "compare")
    assert compared.returncode == 1
    assert "cannot be published" in compared.stdout

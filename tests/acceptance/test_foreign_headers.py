"""Records of other programs whose header names are no UTF-8, in every place that reads headers."""

import json
import uuid

import pytest

from cdc.consumer import Consumer, Event, GapDetector, Rejected, Retry, Verdict
from tests.consuming import Running, committed, make_topic, read, texts
from tests.foreign import produce
from tests.pipeline import Pipeline

BROKEN = [(b"id", b"stranger"), (b"caf\xe9", b"1"), (b"cdc-position", b"nonsense")]
OTHERS = [[(b"\xff", b"")], [(b"\xed\xa0\x80", b"a surrogate")], [(b"", b"no name"), (b"x\xc3", b"\xff")]]


def test_case_h1_a_header_name_that_is_no_utf8_disturbs_no_reader_of_a_topic(pipeline: Pipeline) -> None:
    """The tail of the topic is read back at the start, the dead-letter topic by `dlq`, all of both by `audit`."""
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    pipeline.insert(1, 2)
    publisher = pipeline.start().streams()
    pipeline.settles()
    assert publisher.stop() == 0
    bootstrap = pipeline.settings["kafka"]["bootstrap.servers"]
    dead = pipeline.settings["topics"]["dead_letter"]
    # Python specializes a call that is made many times, and then does not notice the client's error.
    for headers in (BROKEN, *OTHERS):
        produce(bootstrap, pipeline.topic, headers, times=100)
        produce(bootstrap, dead, headers, times=100)
    pipeline.insert(3)
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noticed', '{\"seq\": 1}')"
    )
    publisher = pipeline.start().streams()
    pipeline.settles()
    assert publisher.stop() == 0
    audited = pipeline.run_process("audit")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    listed = pipeline.run_process("dlq", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [json.loads(line)["type"] for line in listed.stdout.splitlines()] == ["Noticed"]


@pytest.mark.parametrize("headers", [BROKEN, *OTHERS])
def test_case_h1_a_consumer_handles_such_a_record_and_buries_it_without_headers(
    pipeline: Pipeline, headers: list[tuple[bytes, bytes]]
) -> None:
    bootstrap, name = pipeline.settings["kafka"]["bootstrap.servers"], f"{pipeline.topic}-{uuid.uuid4()}"
    topic, dead = make_topic(bootstrap, name), make_topic(bootstrap, f"{name}-dead")
    produce(bootstrap, topic, headers, times=50)
    seen: list[Event] = []
    verdicts: list[Verdict] = []
    detector = GapDetector()
    detector.on(Verdict, verdicts.append)

    def handle(event: Event) -> None:
        seen.append(event)
        if len(seen) > 48:
            raise Rejected("not ours")

    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": name},
        [topic],
        handle,
        dead_letter=dead,
        detector=detector,
        retry=Retry(5, 0.01, 0.01),
        commit_seconds=0.05,
    )
    with Running(consumer) as running:
        running.until(lambda: committed(bootstrap, name, topic) == [50], "all are handled or buried")
    assert [(event.id, event.headers) for event in seen] == [(None, ())] * 50
    assert [type(verdict).__name__ for verdict in verdicts] == ["Foreign"] * 50
    for letter in read(bootstrap, dead, 2):
        assert letter.value() == b"foreign"
        assert all(header.startswith("cdc-error-") for header in texts(letter))

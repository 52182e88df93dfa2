"""`check` compares the slot with the publisher's record as `start` does: by the same function, with the same words."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

from cdc.checks.finding import FAIL, PASS, WARN, Finding, Notes
from cdc.checks.slot import SlotNow, identity
from cdc.config.settings import Settings
from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE, Memory, RememberedTopic, SlotRecord
from cdc.lsn import LSN, EventPosition
from tests.produced import produces, record

MARK = SlotRecord("7", 1, "cdc", LSN(100), {}, {}, cluster="c1")
TOPIC = RememberedTopic("first", 3)
THERE: Mapping[str, RememberedTopic] = {"orders": TOPIC}


def judged(
    guarantee: str = AT_LEAST_ONCE,
    memory: Memory = Memory(MARK, forgotten=False, topics=THERE),  # noqa: B008 (immutable)
    there: Mapping[str, RememberedTopic] = THERE,
    **now: Any,
) -> Finding:
    def identities(names: Collection[str]) -> Mapping[str, RememberedTopic]:
        return {name: there[name] for name in names if name in there}

    found = SlotNow(MARK, used=True, timelines={}, wal_end=LSN(200), identities=identities)
    notes = Notes("postgres")
    settings = Settings.model_validate({"delivery": {"guarantee": guarantee}})
    identity(notes, settings, replace(found, **now), memory)
    (finding,) = notes.findings
    record([(finding.name, finding.status)])
    return finding


def test_what_is_as_it_was_left_passes() -> None:
    found = judged()
    assert (found.status, found.found) == (
        PASS,
        "slot, publication, table and topics match the publisher's record (0/64)",
    )


@produces("slot_identity:fail")
def test_another_cluster_is_a_failure_and_its_topics_are_not_compared() -> None:
    found = judged(slot=replace(MARK, cluster="c2"), there={})
    assert found.status == FAIL
    assert found.found.startswith("Kafka is another cluster, with the id 'c2', and was 'c1'")
    assert [fix.rpartition(" ")[2] for fix in found.fix] == ["--repair", "--accept-changes"]


def test_a_topic_that_was_created_again_is_a_failure() -> None:
    found = judged(there={"orders": RememberedTopic("second", 3)})
    assert (found.status, found.found) == (
        FAIL,
        "topic 'orders' was deleted and re-created: the events in it are lost",
    )


def test_a_topic_that_is_gone_is_a_warning_as_it_is_for_start() -> None:
    found = judged(there={})
    assert (found.status, found.found) == (
        WARN,
        "1 topics do not exist any more, and the events in them are lost: orders",
    )


@pytest.mark.parametrize(("guarantee", "status"), [(AT_LEAST_ONCE, WARN), (EXACTLY_ONCE, FAIL)])
def test_a_server_that_was_set_back_stops_exactly_once_only(guarantee: str, status: str) -> None:
    found = judged(guarantee, wal_end=LSN(50))
    assert found.status == status
    assert "PostgreSQL was set back: its WAL ends at 0/32" in found.found


@pytest.mark.parametrize("guarantee", [AT_LEAST_ONCE, EXACTLY_ONCE])
def test_a_slot_that_was_read_from_and_has_no_record_is_a_failure(guarantee: str) -> None:
    nothing = Memory(None, forgotten=False)
    assert judged(guarantee, nothing).status == FAIL
    assert "holds no position of replication slot 'cdc'" in judged(guarantee, nothing).found
    assert judged(guarantee, nothing, used=False).status == PASS
    assert judged(guarantee, Memory(None, forgotten=True)).status == PASS


def test_a_timeline_of_unknown_end_is_a_failure_in_exactly_once() -> None:
    left = replace(MARK, position=EventPosition(LSN(90), 1))
    now = replace(MARK, timeline=2)
    found = judged(EXACTLY_ONCE, Memory(left, forgotten=False), slot=now)
    assert found.status == FAIL
    assert "does not know where timeline 1 ended" in found.found
    assert judged(EXACTLY_ONCE, Memory(left, forgotten=False), slot=now, timelines={1: LSN(95)}).status == PASS

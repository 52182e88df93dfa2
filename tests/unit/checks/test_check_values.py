"""Verdicts of `check` about records that are JSON or text."""

from collections.abc import Callable
from typing import Any

from cdc.avro.contracts import Contracts
from cdc.checks import contracts
from cdc.checks.finding import PASS, Finding, Notes
from cdc.checks.kafka_facts import Clusters, TopicFacts
from cdc.checks.tools import Tools
from cdc.checks.topics import Judge
from cdc.config.settings import Settings
from cdc.postgres.rows import OutboxRow
from tests.produced import produces, record
from tests.unit import contract

SETTINGS = Settings.model_validate({"kafka": {"bootstrap.servers": "kafka:9092"}})
CONTRACTS = Contracts([contract.of("int")], {"Placed": "R"}, "schemas")


def lines_of(look: Callable[[Notes], None]) -> dict[str, Finding]:
    notes = Notes("contracts")
    look(notes)
    record([(found.name, found.status) for found in notes.findings])
    return {found.name: found for found in notes.findings}


@produces("record_values:warn")
def test_a_value_for_an_event_type_that_nothing_has_is_a_warning() -> None:
    settings = Settings.model_validate({"record": {"values": {"Placed": "json", "Noted": "text", "Plaecd": "text"}}})
    found = lines_of(lambda notes: contracts.types(notes, settings, CONTRACTS, ["Noted", "R"]))
    assert found["record_values"].found == "no contract and no row has an event type of [record.values]: Plaecd"
    found = lines_of(lambda notes: contracts.types(notes, settings, CONTRACTS, ["Noted", "R", "Plaecd"]))
    assert {name: line.status for name, line in found.items()} == {"record_values": PASS, "event_types": PASS}
    assert found["event_types"].found == "each type has a contract, or is sent as text: Noted, Plaecd, R"


def test_rows_are_tried_as_they_are_sent() -> None:
    def judged(row: OutboxRow, **given: Any) -> str:
        settings = Settings.model_validate({"record": given})
        return contracts.misfit(settings, CONTRACTS.get, CONTRACTS.missing, row)

    wrong, null = OutboxRow("1", "R", b"{}", False), OutboxRow("1", "R", None, False)
    unknown = OutboxRow("1", "Other", b"x", False)
    assert judged(wrong, value="text") == judged(null, value="text") == judged(unknown, value="text", check=True) == ""
    assert "is missing" in judged(wrong, value="text", check=True)
    assert "is missing" in judged(wrong, value="json")
    assert judged(null, value="json") == "the payload is null"
    assert "no contract" in judged(unknown, value="json")
    right = OutboxRow("1", "R", b'{"v": 1}', False)
    sizes = [
        contracts.size(Settings.model_validate({"record": {"value": value}}), CONTRACTS, right)
        for value in ("text", "json", "avro")
    ]
    assert sizes == [8, 7, 11]


def test_null_payloads_that_delete_keys_of_a_compacted_topic_are_named() -> None:
    notes = Notes("kafka")
    judge = Judge(notes, SETTINGS, Clusters("c", [], None), Tools(SETTINGS))
    topics = [TopicFacts("events", exists=True, config={"cleanup.policy": "compact"})]
    judge.retention(topics, frozenset({"other"}))
    assert "null payloads" not in notes.findings[-1].found
    judge.retention(topics, frozenset({"events"}))
    assert notes.findings[-1].found.endswith("delete their keys in: events")

"""A replay that cannot know whether Kafka has a record takes its transaction back."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cdc.config.settings import Settings
from cdc.dead_letters.producer import Destinations, Outgoing, ResendProducer
from cdc.errors import KafkaUnavailable
from cdc.records.record import Record


class Client:
    """A transactional producer of which every record is delivered, at `offsets`."""

    def __init__(self, offsets: list[int | None]) -> None:
        self._offsets = offsets
        self._reports: list[Callable[[object, object], None]] = []
        self.ended: list[str] = []

    def produce(self, *record: Any) -> None:
        self._reports.append(record[4])

    def poll(self, _: float) -> None:
        """Nothing is reported yet."""

    def flush(self, _: float) -> None:
        offset = self._offsets.pop(0)
        self._reports.pop(0)(None, SimpleNamespace(offset=lambda: offset))

    def __len__(self) -> int:
        return len(self._reports)

    def __bool__(self) -> bool:
        return True

    def init_transactions(self, _: float) -> None: ...

    def begin_transaction(self) -> None: ...

    def commit_transaction(self, _: float) -> None:
        self.ended.append("committed")

    def abort_transaction(self, _: float) -> None:
        self.ended.append("aborted")


def sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> ResendProducer:
    monkeypatch.setattr("cdc.kafka.client.producer", lambda *_, **__: client)
    settings = Settings.model_validate({"kafka": {"bootstrap.servers": "127.0.0.1:1"}, "topics": {"dead_letter": "d"}})
    made = ResendProducer(settings, Destinations(settings, dry_run=True))
    made.begin()
    record = Record.to("orders", b"k", b"v", 0, [], lambda *_: None)
    assert made.send([Outgoing(record, record, 0)]) == {}
    return made


def test_what_has_an_offset_is_committed_when_all_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client([7, 8])
    sent(client, monkeypatch)
    assert (len(client), client.ended) == (0, ["committed"])


def test_a_delivery_without_an_offset_takes_the_transaction_back_c6(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client([7, None])
    with pytest.raises(KafkaUnavailable, match="topic 'orders' took a later record, and one may be lost"):
        sent(client, monkeypatch)
    assert client.ended == ["aborted"]

"""A delivery report without an offset proves nothing, whichever producer it comes from (C6)."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from cdc.config.settings import Settings
from cdc.consumer.dead_letters import DeadLetterProducer
from cdc.consumer.events import Event
from cdc.delivery.positions import SlotRecord
from cdc.delivery.reports import Positions
from cdc.errors import CdcError, KafkaUnavailable
from cdc.kafka import client, positions
from cdc.lsn import LSN
from cdc.replication.settlement import Failure, Ledger, delivered
from tests.memory import NOON

MARK = SlotRecord("7300", 1, "shop", LSN(100), {}, {})
WITH, WITHOUT = (SimpleNamespace(offset=lambda offset=offset: offset) for offset in (0, None))


def test_a_record_is_delivered_when_its_report_has_an_offset_or_its_transaction_is_committed() -> None:
    assert delivered(None, WITH)
    assert delivered(None, None)
    assert not delivered(None, WITHOUT)
    assert not delivered("refused", WITH)


@pytest.mark.parametrize(("message", "undelivered"), [(WITH, 0), (WITHOUT, 1)])
def test_an_event_reported_without_an_offset_stays_undelivered(message: object, undelivered: int) -> None:
    ledger = Ledger()
    transaction = ledger.begin(LSN(200), 0)
    transaction.add_event()
    transaction.report(None, message)
    assert (ledger.undelivered, ledger.failure is None) == (undelivered, not undelivered)


@pytest.mark.parametrize(("message", "confirmed"), [(WITH, 208), (WITHOUT, 100)])
def test_a_position_reported_without_an_offset_moves_no_slot(message: object, confirmed: int) -> None:
    failures: list[Failure] = []
    target = Positions("cdc.positions", MARK, failures.append, 0.0)
    record = target.report(LSN(208), 0.0, NOON)
    assert record
    record.on_delivery(None, message)
    assert target.confirmed == confirmed
    assert bool(failures) == (message is WITHOUT)


class Client:
    """A producer whose every record is reported with `message`."""

    def __init__(self, message: object) -> None:
        self._message = message
        self._reports: list[Callable[[object, object], None]] = []

    def list_topics(self, topic: str, timeout: float) -> object:  # noqa: ARG002 - never asks
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def produce(self, *_: object, on_delivery: Callable[[object, object], None], **__: object) -> None:
        self._reports.append(on_delivery)

    def poll(self, _: float) -> None:
        while self._reports:
            self._reports.pop(0)(None, self._message)

    flush = poll

    def purge(self, *, in_flight: bool) -> None: ...


def write(message: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "Producer", lambda *_, **__: Client(message))
    positions.write(Settings.model_validate({"kafka": {"bootstrap.servers": "127.0.0.1:1"}}), "7300/shop", b"{}")


def test_a_position_written_without_an_offset_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    write(WITH, monkeypatch)
    with pytest.raises(KafkaUnavailable, match="this one may be lost"):
        write(WITHOUT, monkeypatch)


def buried(message: object, monkeypatch: pytest.MonkeyPatch) -> CdcError | None:
    """Send one dead letter of a consumer; returns the error that was reported."""
    monkeypatch.setattr(client, "Producer", lambda *_, **__: Client(message))
    target = DeadLetterProducer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}, "buried")
    reports: list[CdcError | None] = []
    event = Event("t", 0, 7, 1000, b"k", b"v", (), "id", "Type", None, None)
    assert target.send(event, ValueError("x"), reports.append)
    target.poll()
    (report,) = reports
    return report


def test_a_consumers_dead_letter_without_an_offset_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert buried(WITH, monkeypatch) is None
    assert isinstance(buried(WITHOUT, monkeypatch), KafkaUnavailable)

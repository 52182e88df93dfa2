"""A schema whose id is not known yet: the session waits with the event, loses nothing, and keeps the order."""

import pytest

from cdc.delivery.loop import Publisher
from cdc.errors import KafkaError, PoisonEvent
from cdc.records.encoding import Encoding
from cdc.replication.settlement import Ledger
from tests.memory import Clock, MemorySink, MemorySource
from tests.unit import frames, shop
from tests.unit.frames import xlog
from tests.unit.shop import (
    BYTEA,
    EVENT_ID,
    OID,
    RELATION,
    TEXT,
    UUID,
    Encoders,
    Framing,
    Upper,
    begin,
    commit,
    event,
    outbox,
    row,
    session,
)

TOPIC = "outbox.event.order"


def test_a_pending_schema_stops_reading_at_its_event_and_goes_on_with_it_d1() -> None:
    framing = Framing(**{TOPIC: None})
    ledger = Ledger()
    running = session(ledger, framing=framing)
    batch = [xlog(RELATION, 1), begin(100), event('{"n": 1}'), event('{"n": 2}'), commit(100)]
    assert running.receive(batch) == []
    waiting = running.pending
    assert waiting
    assert running.resume() == []
    assert ledger.settle() == 0

    framing.headers[TOPIC] = b"\x00id"
    records = running.resume()
    assert [record.value for record in records] == [b'\x00id{"N": 1}', b'\x00id{"N": 2}']
    assert [str(dict(record.headers)["cdc-position"])[-8:] for record in records] == ["00000000", "00000001"]
    assert not running.pending
    for record in records:
        record.on_delivery(None, None)
    assert ledger.settle() == 108


def _publisher(clock: Clock, framing: Framing, *bursts: list[bytes]) -> tuple[Publisher, MemorySource, MemorySink]:
    source, sink = MemorySource(clock, bursts), MemorySink(clock)
    publisher = Publisher(source, sink, session(framing=framing), lambda _: KafkaError("refused"), clock)
    return publisher, source, sink


def test_while_a_schema_is_pending_nothing_is_read_and_postgresql_hears_of_us_d1() -> None:
    clock = Clock()
    framing = Framing(**{TOPIC: None})
    first, second = [xlog(RELATION, 1), begin(100), event(), commit(100)], [begin(200), event(), commit(200)]
    publisher, source, sink = _publisher(clock, framing, first, second)
    for _ in range(30):
        clock.advance(1)
        publisher.step()
    assert source.reads == 1
    assert len(source.written) >= 3
    framing.headers[TOPIC] = b""
    for _ in range(4):
        publisher.step()
    assert len(sink.sent) == 2


def test_a_drain_waits_for_a_pending_schema_until_its_deadline() -> None:
    clock = Clock(tick=0.01)
    framing = Framing(**{TOPIC: None})
    publisher, _, sink = _publisher(clock, framing, [xlog(RELATION, 1), begin(100), event(), commit(100)])
    sink.settles_at_once = True
    publisher.step()
    assert publisher.drain(clock.now + 5) is False
    framing.headers[TOPIC] = b""
    assert publisher.drain(clock.now + 5) is True


def test_an_empty_payload_is_a_tombstone_when_asked_for_and_poison_else() -> None:
    cells = (EVENT_ID, "order", "o-1", "OrderPlaced")
    for payload in (None, " "):
        reader = outbox(tombstones=True)
        encoding = Encoding(reader, Encoders(), Framing())
        assert encoding.record(reader.event(row(*cells, payload))).value is None
    reader = outbox()
    with pytest.raises(PoisonEvent, match="column 'payload' is null"):
        Encoding(reader, Encoders(), Framing()).record(reader.event(row(*cells, None)))


def test_an_unknown_type_goes_into_the_envelope_when_there_is_one() -> None:
    reader = outbox()
    encoding = Encoding(reader, Encoders(), Framing(**{TOPIC: b"\x01"}), envelope=Upper())
    made = encoding.record(reader.event(row(EVENT_ID, "order", "o-1", "Unknown", '{"n": 1}'))).value
    assert made is not None
    assert made[:1] == b"\x01"
    assert "'aggregate': 'order', 'key': 'o-1', 'payload': '{\"n\": 1}', 'headers': {}" in made.decode("latin-1")


def test_case_g4_an_envelope_has_no_headers_of_nulls() -> None:
    relation = frames.relation(OID, "outbox", [*shop.COLUMNS, ("tenant", TEXT)])
    reader = outbox(headers=["tenant"], iso=True)
    encoding = Encoding(reader, Encoders(), Framing(), envelope=Upper())
    cells = (EVENT_ID, "order", "o-1", "Unknown", "{}", None)
    made = encoding.record(reader.event(row(*cells, relation=relation)))
    assert made.headers[-1] == ("tenant", None)
    assert made.value is not None
    assert "'headers': {}" in made.value.decode("latin-1")


def test_bytea_is_framed_only_when_it_is_a_bare_body() -> None:
    table = frames.relation(
        OID,
        "outbox",
        [("id", UUID), ("aggregatetype", TEXT), ("aggregateid", TEXT), ("type", TEXT), ("payload", BYTEA)],
    )
    reader = outbox()
    made = reader.event(row(EVENT_ID, "order", "o-1", "OrderPlaced", "\\x0a0b", relation=table))
    framing = Framing(**{TOPIC: b"\x00"})
    assert Encoding(reader, Encoders(), framing).record(made).value == b"\x0a\x0b"
    assert Encoding(reader, Encoders(), framing, frame_bytea=True).record(made).value == b"\x00\x0a\x0b"


class Slow(Framing):
    """A header that is known after it was asked for so many times."""

    def __init__(self, asks: int) -> None:
        super().__init__()
        self.asks = asks

    def header(self, topic: str, contract: str) -> bytes | None:
        self.asks -= 1
        return None if self.asks >= 0 else super().header(topic, contract)


@pytest.mark.parametrize("asks", range(1, 8))
def test_a_drain_that_meets_a_pending_schema_skips_nothing_of_its_transaction(asks: int) -> None:
    clock = Clock(tick=0.001)
    bursts = [[xlog(RELATION, 1), begin(100)], [*(event(f'{{"n": {n}}}') for n in range(4)), commit(100), begin(200)]]
    publisher, source, sink = _publisher(clock, Slow(asks), *bursts)
    sink.settles_at_once = True
    publisher.step()
    assert publisher.drain(clock.now + 60) is True
    assert [record.value for record in sink.sent] == [b'{"N": %d}' % n for n in range(4)]
    assert source.confirmed[-1] == 108

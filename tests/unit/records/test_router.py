"""Routes: found once for each event type and topic, and not for what is made in its own way."""

import pytest

from cdc.errors import Unfit
from cdc.outbox.events import Event
from cdc.records.encoding import Encoding
from cdc.records.router import MOST, Pending, Router
from tests.unit import frames, shop
from tests.unit.shop import EVENT_ID, Encoders, Framing, Upper

BYTEA_TABLE = frames.relation(
    shop.OID, "outbox", [*((name, kind) for name, kind in shop.COLUMNS if name != "payload"), ("payload", shop.BYTEA)]
)


class Counting(Framing):
    """Framing that counts how often it is asked."""

    asked = 0

    def header(self, topic: str, contract: str) -> bytes | None:
        self.asked += 1
        return super().header(topic, contract)


def event(
    event_type: str = "OrderPlaced", aggregate: str = "order", payload: str = "{}", *, bytea: bool = False
) -> Event:
    relation = BYTEA_TABLE if bytea else shop.RELATION
    return shop.outbox().event(shop.row(EVENT_ID, aggregate, "o-1", event_type, payload, relation=relation))


def test_a_route_is_found_once_for_each_type_and_topic() -> None:
    framing = Counting(**{"outbox.event.order": b"1", "outbox.event.customer": b"2"})
    router = Router(Encoders(), framing)
    assert router.route(event()) is router.route(event(payload='{"n":1}'))
    assert framing.asked == 1
    other = router.route(event(aggregate="customer"))
    assert (other.topic, other.header, framing.asked) == ("outbox.event.customer", b"2", 2)


def test_bytes_and_texts_of_one_type_have_routes_of_their_own() -> None:
    router = Router(Encoders(), Framing(**{"outbox.event.order": b"1"}))
    assert router.route(event()).encode is not None
    assert router.route(event(payload="\\x00", bytea=True)) == (
        "outbox.event.order",
        "OrderPlaced",
        b"",
        None,
        None,
        (),
        False,
    )
    framed = Router(Encoders(), Framing(**{"outbox.event.order": b"1"}), frame_bytea=True)
    assert framed.route(event(payload="\\x00", bytea=True)).header == b"1"


def test_what_is_not_known_yet_is_asked_for_again() -> None:
    framing = Framing(**{"outbox.event.order": None})
    router = Router(Encoders(), framing)
    with pytest.raises(Pending):
        router.route(event())
    framing.headers["outbox.event.order"] = b"1"
    assert router.route(event()).header == b"1"
    with pytest.raises(Unfit, match="Unknown"):
        router.route(event("Unknown"))


def test_routes_do_not_grow_without_bound() -> None:
    framing = Counting()
    router = Router(Encoders(), framing)
    first = event()
    for number in range(MOST + 1):
        router.route(first._replace(topic=f"t{number}"))
    router.route(first._replace(topic="t0"))
    assert framing.asked == MOST + 2


def test_only_what_the_payload_alone_decides_is_shared() -> None:
    reader = shop.outbox()
    seen: list[str] = []

    def examine(event_type: str, _body: bytes) -> bool:
        seen.append(event_type)
        return len(seen) == 2

    encoding = Encoding(reader, Encoders(), Framing(), envelope=Upper(), examine=examine)
    for _ in range(2):
        assert encoding.shared(event()) is None
        encoding.record(event())
    assert encoding.shared(event()) is not None
    assert encoding.shared(event("Unknown")) is None
    assert encoding.shared(event()._replace(payload=None)) is None

"""Where runs end, and what becomes of what a plan declines."""

import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import Make
from cdc.records.router import MOST, Route
from cdc.replication.messages import Insert, TupleData
from tests.unit import frames, shop
from tests.unit.records.test_runs import FRAMES, MAKES, PREFIX, TIMESTAMP, Table
from tests.unit.shop import OID

MAKE: Make = Unrolled
# What cannot come from `cdc.records.fastpath.layout`; but Rust takes nothing on trust.
NATIVE_ONLY = pytest.mark.parametrize("make", sorted(MAKES.keys() - {"python"}), indirect=True)


@pytest.fixture(params=sorted(MAKES), autouse=True)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test with each way of making runs."""
    monkeypatch.setattr(sys.modules[__name__], "MAKE", MAKES[request.param])
    return str(request.param)


ROOM = 1_000_000


def plain(count: int = 3, **cells: bytes) -> list[bytes]:
    """Rows that nothing is wrong with."""
    given = {"aggregate": b"order", "type": b"Placed", "payload": b'\x01{"order": 1, "lines": []}'} | cells
    row = [bytes(16), given["aggregate"], b"o-1", given["type"], given["payload"]]
    return [frames.xlog(Insert(OID, TupleData(b"b" * len(row), row)))] * count


def table(run: list[bytes] | None = None) -> Table:
    """The table of the other tests in binary; it knows the route of a run."""
    made = Table(shop.RELATION, shop.outbox(), MAKE, binary=True, frame_bytea=False)
    if run:
        made.learn(run[0], ROOM)
    return made


def test_a_run_of_plain_rows_is_taken_whole() -> None:
    run = plain(300)
    assert table().check(run, 0, 0, ROOM) == 0, "no route yet"
    known = table(run)
    assert known.check(run, 0, 0, ROOM) == 300
    assert known.check(run, 299, 5, ROOM) == 1
    assert known.check(run, 300, 0, ROOM) == 0


def test_a_run_ends_before_the_first_frame_that_is_not_plain() -> None:
    known = table(plain())
    for stop in (
        b"",
        b"w",
        frames.keepalive(5),
        shop.begin(9),
        shop.commit(9),
        plain(type=b"Paid")[0],
        plain()[0][:-1],
    ):
        assert known.check([*plain(2), stop, *plain(2)], 0, 0, ROOM) == 2


def test_a_route_is_known_by_each_of_its_cells() -> None:
    runs = taught(echo)
    assert len(taken(runs, plain())) == 3
    for type_, aggregate in ((b"Place", b"dorder"), (b"Placedo", b"rder"), (b"order", b"Placed")):
        assert taken(runs, plain(type=type_, aggregate=aggregate)) == []


def test_what_was_forgotten_is_not_taken() -> None:
    known = table(plain())
    assert known.runs is not None
    known.runs.forget()
    assert known.check(plain(), 0, 0, ROOM) == 0


def test_a_record_near_the_limit_of_its_topic_is_left_to_the_general_road() -> None:
    known, run = table(), plain()
    value = len(known.general(run[0], 0)[2].value or b"")
    far = 512 + 4 * len(run[0]) + value
    known.learn(run[0], far - 1)
    assert known.check(run, 0, 0, ROOM) == 0
    known.learn(run[0], far)
    assert known.check(run, 0, 0, ROOM) == 3


def test_a_payload_that_the_plan_declines_is_encoded_in_python() -> None:
    text = b'{"v": {"bytes": "x"}}'
    run = plain(type=b"Either", payload=b"\x01" + text)
    assert table(run).check(run, 0, 0, ROOM) == 3


def test_a_decimal_in_a_payload_is_exact() -> None:
    run = plain(type=b"Paid", payload=b'\x01{"at": 0, "sum": 0.07}')
    known = table(run)
    assert known.check(run, 0, 0, ROOM) == 3
    assert known.runs is not None
    body = known.runs.take(run, 0, PREFIX, 0, TIMESTAMP, ignore)[0][1] or b""
    body = body[len(FRAMES) :]
    assert body[:2] == b"\x00\x02"
    assert Decimal(int.from_bytes(body[2:], "big")).scaleb(-2) == Decimal("0.07")


def taught(encode: Callable[[bytes, bytes], bytes] | None, **change: Any) -> Any:
    """Runs whose only route has this encoder and no plan."""
    found = table().layout
    assert found is not None
    runs = MAKE(found._replace(**change))
    runs.learn(b"Placed", (b"order",), Route("t", "Placed", b"h", encode), ROOM)
    return runs


def taken(runs: Any, run: list[bytes] | None = None) -> list[bytes | None]:
    """The values of the records of a run."""
    return [record[1] for record in runs.take(run or plain(), 0, PREFIX, 0, TIMESTAMP, ignore)]


def ignore(error: object, message: object) -> None:
    """Nobody asks how these deliveries end."""


def echo(payload: bytes, header: bytes) -> bytes:
    return header + payload


def test_without_a_plan_python_encodes_everything() -> None:
    assert taken(taught(echo)) == [b'h{"order": 1, "lines": []}'] * 3
    assert taken(taught(None)) == []


def test_runs_keep_no_more_than_so_many_routes() -> None:
    runs = taught(echo)
    for number in range(MOST - 1):
        runs.learn(b"Placed", (b"%d" % number,), Route("t", "Placed", b"h", echo), ROOM)
    runs.learn(b"Placed", (b"0",), Route("t", "Placed", b"h", echo), ROOM)  # is known, and takes no place of another
    assert len(taken(runs)) == 3
    runs.learn(b"Placed", (b"new",), Route("t", "Placed", b"h", echo), ROOM)
    assert taken(runs) == []
    assert len(taken(runs, plain(aggregate=b"new"))) == 3


def test_constant_headers_of_a_route_stand_behind_the_position() -> None:
    layout = table().layout
    assert layout is not None
    runs = MAKE(layout)
    constant = (("content-type", "application/json"), ("form", "2"))
    runs.learn(b"Placed", (b"order",), Route("t", "Placed", b"h", echo, headers=constant), ROOM)
    names = [name for name, _ in runs.take(plain(1), 0, PREFIX, 0, TIMESTAMP, ignore)[0][7]]
    assert names == ["id", "eventType", "cdc-position", "content-type", "form"]
    assert runs.take(plain(1), 0, PREFIX, 0, TIMESTAMP, ignore)[0][7][3:] == list(constant)


def test_an_empty_payload_ends_the_run_where_it_means_a_tombstone() -> None:
    blank = plain(payload=b"\x01 \t\n\r\x0b\x0c")
    assert taken(taught(echo), blank) == [b"h \t\n\r\x0b\x0c"] * 3
    assert taken(taught(echo, tombstones=True), blank) == []
    assert taken(taught(echo, tombstones=True), plain(payload=b"\x01")) == []
    assert taken(taught(echo, tombstones=True), plain(payload=b"\x01 x")) == [b"h x"] * 3


@pytest.mark.parametrize("error", [ValueError("x"), ArithmeticError(), RecursionError(), RuntimeError(), KeyError(1)])
def test_a_run_ends_where_the_encoder_refuses(error: Exception) -> None:
    def refuse(_payload: bytes, _header: bytes) -> bytes:
        raise error

    assert taken(taught(refuse)) == []


def test_an_interrupt_within_the_encoder_is_passed_on() -> None:
    def interrupted(_payload: bytes, _header: bytes) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taken(taught(interrupted))


def test_an_encoder_that_empties_the_list_of_frames_ends_the_run() -> None:
    run = plain(5)

    def meddling(payload: bytes, header: bytes) -> bytes:
        run.clear()
        return echo(payload, header)

    assert taken(taught(meddling), run) == [b'h{"order": 1, "lines": []}']


@NATIVE_ONLY
def test_what_the_encoder_returns_must_be_bytes() -> None:
    def wrong(payload: bytes, _header: bytes) -> Any:
        return payload.decode()

    assert taken(taught(wrong)) == []


@NATIVE_ONLY
@pytest.mark.parametrize(
    "change",
    [{"cells": ("later",) * 5}, {"cells": ()}, {"id": 9}, {"topic": (9,)}, {"headers": (("x", 9),)}],
    ids=str,
)
def test_a_layout_that_is_not_understood_takes_nothing(change: dict[str, Any]) -> None:
    assert taken(taught(echo, **change)) == []

"""The nemesis follows from its seed and is busy enough; the proxies' splitters lose and invent no byte."""

import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.torture.faults import FAULTS
from tests.torture.kafka_frames import KafkaFrames
from tests.torture.nemesis import schedule
from tests.torture.postgres_frames import PostgresFrames, Tape, error_response
from tests.torture.watch import Unsafe, Watch

SSL_REQUEST = struct.pack(">II", 8, 80877103)
STARTUP = b"\0\0\0\x14\0\x03\0\0user\0postgres"[:20]
CHANGES = Counter({"publisher": 300, "broker": 60, "postgres": 60, "network": 200})


def tape() -> Tape:
    placed: dict[int, int] = {}
    unsafe: list[Unsafe] = []
    return Tape(Watch(), placed.__setitem__, unsafe.append)


def test_the_same_seed_gives_the_same_schedule_and_another_another() -> None:
    assert schedule(7, 600) == schedule(7, 600)
    assert schedule(7, 600) != schedule(8, 600)


def test_a_schedule_is_in_order_and_ends_in_time() -> None:
    times = [plan.at for plan in schedule(1, 300)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < 300


def test_the_schedule_of_one_kind_does_not_depend_on_the_others() -> None:
    alone = [fault for fault in FAULTS if fault.name == "pg-cut"]
    assert schedule(3, 900, alone) == [plan for plan in schedule(3, 900) if plan.fault.name == "pg-cut"]


def test_no_kind_is_left_out_when_each_is_wanted_once() -> None:
    assert {plan.fault for plan in schedule(1, 10, once=True)} == set(FAULTS)


@pytest.mark.parametrize("seed", range(5))
def test_an_hour_in_two_halves_holds_what_a_campaign_needs(seed: int) -> None:
    planned = [plan for half in (seed, seed + 100) for plan in schedule(half, 30 * 60)]
    kills = sum(plan.fault.name in ("publisher-kill", "publisher-takeover") for plan in planned)
    groups = Counter(plan.fault.group for plan in planned)
    groups["publisher"] = kills
    assert groups >= CHANGES


def chunked(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return [*chunks, data[at:]]


@given(st.lists(st.integers(1, 40), max_size=30), st.lists(st.binary(max_size=30), max_size=8))
def test_postgres_messages_are_the_same_however_they_arrive(sizes: list[int], bodies: list[bytes]) -> None:
    messages = [b"d" + struct.pack(">I", 4 + len(body)) + body for body in bodies]
    frames = PostgresFrames(tape())
    up, data = [], bytearray()
    for chunk in chunked(SSL_REQUEST + STARTUP + b"".join(messages), sizes):
        data += chunk
        up += list(frames.up(data))
    assert (up, bytes(data)) == ([SSL_REQUEST, STARTUP, *messages], b"")
    down = []
    for chunk in chunked(b"N" + b"".join(messages), sizes):
        data += chunk
        down += list(frames.down(data))
    assert (down, bytes(data)) == ([b"N", *messages], b"")


@given(st.lists(st.integers(1, 40), max_size=30), st.lists(st.binary(min_size=8, max_size=30), max_size=8))
def test_kafka_messages_are_the_same_however_they_arrive(sizes: list[int], bodies: list[bytes]) -> None:
    messages = [struct.pack(">Ihh", 4 + len(body), 3, 1) + body for body in bodies]
    frames = KafkaFrames(tape(), {})
    up, data = [], bytearray()
    for chunk in chunked(b"".join(messages), sizes):
        data += chunk
        up += list(frames.up(data))
    assert (up, bytes(data)) == (messages, b"")


def produce(version: int, correlation: int, records: bytes) -> bytes:
    """A Produce request of one batch for partition 2 of topic t."""
    if version >= 9:
        body = b"\0" + b"\0" + struct.pack(">hi", -1, 1000) + b"\2" + b"\2t" + b"\2" + struct.pack(">i", 2)
        body += bytes([len(records) + 1]) + records + b"\0\0\0"
    else:
        body = struct.pack(">hhii", -1, -1, 1000, 1) + b"\0\1t" + struct.pack(">iii", 1, 2, len(records)) + records
    header = struct.pack(">hhi", 0, version, correlation) + b"\0\2me"
    return struct.pack(">I", len(header) + len(body)) + header + body


def produced(version: int, correlation: int, error: int) -> bytes:
    """The response to it."""
    if version >= 9:
        body = b"\0" + b"\2" + b"\2t" + b"\2" + struct.pack(">ihqqq", 2, error, 40, -1, 0) + b"\1\0\0\0" + b"\0\0\0\0\0"
    else:
        body = struct.pack(">i", 1) + b"\0\1t" + struct.pack(">iihqqq", 1, 2, error, 40, -1, 0)
        body += struct.pack(">ih", 0, -1) if version >= 8 else b""
        body += struct.pack(">i", 0)
    return struct.pack(">Ii", 4 + len(body), correlation) + body


@pytest.mark.parametrize("version", [7, 8, 9, 10])
@pytest.mark.parametrize(("error", "missing"), [(0, 0), (46, 0), (19, 1)])
def test_i6_what_a_broker_accepted_is_acknowledged_and_what_it_refused_is_not(
    version: int, error: int, missing: int
) -> None:
    one = tape()
    sessions: dict[tuple[str, int], list[tuple[int, int]]] = {}
    frames = KafkaFrames(one, sessions)
    one.watch.begin(0xAB)
    one.watch.commit(0xAB, 0xCD, 1)
    records = b"...cdc-positionD5d4fdb41-00000000000000AB-00000000..."
    assert len(list(frames.up(bytearray(produce(version, 9, records))))) == 1
    response = produced(version, 9, error)
    assert frames.is_produced(response, ("t", 2))
    assert not frames.is_produced(response, ("t", 1))
    (passed,) = frames.down(bytearray(response))
    assert one.watch.unacknowledged == 1
    frames.passing(passed)
    assert one.watch.unacknowledged == missing
    assert sessions == ({} if missing else {("t", 2): [(40, 0)]})


def test_i6_the_flush_position_of_a_status_update_is_what_counts() -> None:
    one = tape()
    frames = PostgresFrames(one)
    list(frames.up(bytearray(STARTUP + _message(b"Q", b"START_REPLICATION SLOT s LOGICAL 0/0\0"))))
    begin = b"B" + struct.pack(">QqI", 100, 0, 7)
    commit = b"C" + struct.pack(">BQQq", 0, 100, 110, 0)
    xlog = b"w" + bytes(24)
    down = [_message(b"W", b"\0\0\0"), *(_message(b"d", xlog + part) for part in (begin, b"I....", commit))]
    assert len(list(frames.down(bytearray(b"".join(down))))) == 4
    assert one.sessions == 1
    status = b"r" + struct.pack(">QQQq?", 500, 110, 0, 0, False)
    list(frames.up(bytearray(_message(b"d", status))))
    assert one.watch.violations == [Unsafe(110, 100, 1)]


def test_an_error_response_has_the_fields_that_clients_read() -> None:
    assert error_response("57P01", "bye") == b"E" + struct.pack(">I", 31) + b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0"


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", 4 + len(body)) + body

"""The nemesis follows from its seed and is busy enough; the proxies' splitters lose and invent no byte."""

import json
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from cdc.lsn import LSN
from cdc.polling.progress import Progress
from cdc.polling.schedule import Holding
from cdc.polling.snapshots import NOTHING
from cdc.postgres.relay import Relay, RelayConnection, RelayRow, RowSource
from cdc.postgres.session import PostgresSession
from cdc.replication.messages import Relation
from tests.torture.crashes import shuffled
from tests.torture.crew import Publisher
from tests.torture.faults import FAULTS
from tests.torture.nemesis import schedule
from tests.torture.postgres_frames import PostgresFrames, Tape, error_response
from tests.torture.repeats import Repeated, repeated
from tests.torture.watch import TooMany, Unsafe, Watch

SSL_REQUEST = struct.pack(">II", 8, 80877103)
STARTUP = b"\0\0\0\x14\0\x03\0\0user\0postgres"[:20]
CHANGES = Counter({"publisher": 300, "broker": 60, "postgres": 60, "network": 200})


def tape() -> Tape:
    placed: dict[int, int] = {}
    unsafe: list[Unsafe | TooMany] = []
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
def test_crashes_follow_the_seed_in_number_and_order_and_hit_streaming_publishers(
    seed: int,
) -> None:
    planned = shuffled(seed, 200, 30)
    assert planned == shuffled(seed, 200, 30) != shuffled(seed + 1, 200, 30)
    counted = Counter(plan.fault.name for plan in planned)
    assert counted == {"publisher-kill": 200, "postgres-immediate": 15, "postgres-kill": 15}
    early = [plan for plan in planned if plan.at < 0]
    assert 10 <= len(early) <= 60
    assert {plan.fault.name for plan in early} == {"publisher-kill"}
    assert all(-1 <= plan.at < 0 or 0.1 <= plan.at <= 2 for plan in planned)
    assert len({plan.seed for plan in planned}) == 230


def test_duplicates_belong_to_what_went_before_their_session() -> None:
    causes = {2: Counter(kill=1), 3: Counter(kill=2, crash=1), 4: Counter(crash=1), 6: Counter(kill=1)}
    found = repeated({2: 5, 3: 7, 5: 2, 6: 1}, causes)
    assert found == {
        "crash": Repeated(2, 7, 3.5, 7),
        "kill": Repeated(4, 6, 1.5, 5),
        "other": Repeated(0, 2, 2.0, 2),
    }
    assert repeated({}, {})["kill"] == Repeated(0, 0, 0.0, 0)


def test_what_a_publisher_did_since_its_start_is_read_from_its_log(tmp_path: Path) -> None:
    log = tmp_path / "publisher.log"
    log.write_text('{"message":"streaming"}\n')  # of the one before
    lines = [{"message": "standby: another publisher reads"}, {"message": "streaming"}, {"message": "stopped"}]
    script = "".join(f"print({json.dumps(line)!r})\n" for line in lines)
    publisher = Publisher([sys.executable, "-c", script], log, tmp_path)
    assert publisher.process.wait() == 0
    assert publisher.states() == ["standby", "streaming"]


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


def test_i6_the_statements_of_a_relay_say_what_it_confirms_and_when_a_session_begins() -> None:
    one = tape()
    relay = RelayConnection(cast(PostgresSession, Spoken(one)), ("public", "outbox"), "r")
    relay.beat()
    row = RelayRow("id", "outbox", Holding(None, 0, 0, False), 0, LSN(0), Progress(NOTHING), NOTHING, None)
    relay.take(row, 1, "me", locked=False)
    assert one.sessions == 1
    shape = RowSource(Relation(1, "public", "outbox", "d", ()), True, False, "")
    Relay(cast(PostgresSession, Spoken(one)), ("public", "outbox"), "r", shape).confirm(
        LSN(9), Progress(NOTHING, rows=7)
    )
    assert one.watch.violations == [TooMany(7, 0)]


class Spoken:
    """A connection whose statements pass a tape; each has a row."""

    def __init__(self, tape: Tape) -> None:
        self._frames = PostgresFrames(tape)
        list(self._frames.up(bytearray(STARTUP)))

    def execute(self, statement: sql.Composed) -> "Spoken":
        list(self._frames.up(bytearray(_message(b"Q", statement.as_string().encode() + b"\0"))))
        return self

    def nextset(self) -> None:
        """There is no other result."""

    description = True

    def fetchall(self) -> list[tuple[int]]:
        return [(1,)]


def test_an_error_response_has_the_fields_that_clients_read() -> None:
    assert error_response("57P01", "bye") == b"E" + struct.pack(">I", 31) + b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0"


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", 4 + len(body)) + body

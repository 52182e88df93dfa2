"""The envelope: keepalives in, status updates out."""

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import ProtocolError
from cdc.lsn import LSN
from cdc.replication.frames import (
    EPOCH_OFFSET_MS,
    KEEPALIVE,
    XLOG_DATA,
    XLOG_HEADER_SIZE,
    Keepalive,
    keepalive,
    status_update,
)
from cdc.replication.messages import Begin
from cdc.replication.pgoutput import decode
from tests import payloads
from tests.unit import frames

lsns = st.integers(0, 0xFFFFFFFF_FFFFFFFF).map(LSN)


def test_the_golden_keepalive_is_read() -> None:
    assert payloads.KEEPALIVE[:1] == KEEPALIVE
    assert keepalive(payloads.KEEPALIVE) == Keepalive(LSN.parse("0/77ED9F8"), reply_requested=False)


def test_the_golden_frame_of_xlog_data_holds_a_begin() -> None:
    assert payloads.XLOG_DATA[:1] == XLOG_DATA
    message = decode(payloads.XLOG_DATA, XLOG_HEADER_SIZE)
    assert message == payloads.BEGIN.message
    assert isinstance(message, Begin)


@pytest.mark.parametrize("size", range(len(payloads.KEEPALIVE)))
def test_a_truncated_keepalive_is_a_protocol_error(size: int) -> None:
    with pytest.raises(ProtocolError):
        keepalive(payloads.KEEPALIVE[:size])


def test_a_keepalive_with_a_byte_appended_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="19 bytes"):
        keepalive(payloads.KEEPALIVE + b"\0")


@given(lsns, st.booleans())
def test_a_keepalive_is_read_as_it_was_sent(wal_end: LSN, reply: bool) -> None:
    assert keepalive(frames.keepalive(wal_end, reply=reply)) == Keepalive(wal_end, reply)


@given(lsns, st.integers(0, 4_000_000_000), st.booleans())
def test_a_status_update_confirms_one_lsn_as_written_flushed_and_applied(lsn: LSN, unix_time: int, reply: bool) -> None:
    kind, written, flushed, applied, clock, asks = struct.unpack(
        ">cQQQqB", status_update(lsn, unix_time, reply_requested=reply)
    )
    assert (kind, written, flushed, applied, asks) == (b"r", lsn, lsn, lsn, reply)
    assert clock == (unix_time - EPOCH_OFFSET_MS // 1000) * 1_000_000


def test_a_status_update_has_exactly_the_confirmed_lsn_and_not_one_more_a4() -> None:
    assert status_update(LSN.parse("1/0"), 0.0)[9:17] == bytes.fromhex("0000000100000000")


def test_clocks_count_from_the_year_2000() -> None:
    assert datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1000 == EPOCH_OFFSET_MS
    assert status_update(LSN(0), 946_684_800.000_001)[25:33] == (1).to_bytes(8, "big")

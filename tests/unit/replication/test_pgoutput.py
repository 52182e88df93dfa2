"""decode: every golden payload, cut everywhere, and bytes that no server would send."""

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import ProtocolError
from cdc.replication.messages import Message
from cdc.replication.pgoutput import READERS, decode
from tests import payloads
from tests.examples import examples
from tests.payloads import Golden
from tests.unit import frames

GOLDEN = pytest.mark.parametrize("golden", payloads.ALL.values(), ids=payloads.ALL)


@GOLDEN
def test_a_golden_payload_decodes_to_exactly_its_message(golden: Golden) -> None:
    message = decode(golden.payload)
    assert message == golden.message
    assert type(message) is type(golden.message)


@GOLDEN
def test_a_golden_payload_decodes_within_its_frame(golden: Golden) -> None:
    assert decode(b"w" + bytes(24) + golden.payload, 25) == golden.message


@GOLDEN
def test_a_payload_truncated_anywhere_is_a_protocol_error(golden: Golden) -> None:
    for size in range(len(golden.payload)):
        with pytest.raises(ProtocolError):
            decode(golden.payload[:size])


@GOLDEN
@pytest.mark.parametrize("extra", [b"\0", b"x", b"\xff"])
def test_a_payload_with_a_byte_appended_is_a_protocol_error(golden: Golden, extra: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(golden.payload + extra)


@GOLDEN
def test_a_payload_with_any_byte_changed_decodes_or_is_a_protocol_error(golden: Golden) -> None:
    for at in range(len(golden.payload)):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            broken = golden.payload[:at] + bytes([value]) + golden.payload[at + 1 :]
            assert decodes_or_refuses(broken)


def decodes_or_refuses(payload: bytes) -> bool:
    """Whether it is a message, which says the same when it is encoded again, or else a protocol error with a reason."""
    try:
        message = decode(payload)
    except ProtocolError as error:
        return bool(error.message)
    return decode(frames.encode(message)) == message


@pytest.mark.parametrize("kind", sorted(set(map(chr, range(256))) - {kind.decode() for kind in READERS}))
def test_an_unknown_kind_is_a_protocol_error_a23(kind: str) -> None:
    with pytest.raises(ProtocolError, match="unknown pgoutput message kind"):
        decode(kind.encode("latin-1") + bytes(40))


@pytest.mark.parametrize("kind", ["S", "E", "c", "A"])
def test_a_message_of_a_streamed_transaction_is_never_mistaken_for_another(kind: str) -> None:
    assert kind.encode() not in READERS


def test_an_empty_payload_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        decode(b"")


def test_a_frame_shorter_than_its_header_is_a_protocol_error() -> None:
    for size in range(26):
        with pytest.raises(ProtocolError):
            decode(payloads.XLOG_DATA[:size], 25)


@given(st.binary(max_size=200))
@examples(300)
def test_random_bytes_decode_or_are_a_protocol_error(payload: bytes) -> None:
    assert decodes_or_refuses(payload)


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=200))
@examples(500)
def test_random_bytes_of_a_known_kind_decode_or_are_a_protocol_error(kind: bytes, rest: bytes) -> None:
    assert decodes_or_refuses(kind + rest)


@given(frames.messages())
@examples(500)
def test_an_encoded_message_decodes_to_itself(message: Message) -> None:
    assert decode(frames.encode(message)) == message


@given(frames.messages(), st.data())
@examples(200)
def test_an_encoded_message_truncated_anywhere_is_a_protocol_error(message: Message, data: st.DataObject) -> None:
    payload = frames.encode(message)
    size = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ProtocolError):
        decode(payload[:size])


HOSTILE = {
    "insert with 65535 columns": b"I" + struct.pack(">Ic", 1, b"N") + b"\xff\xff",
    "insert with 65535 columns, some there": b"I" + struct.pack(">Ic", 1, b"N") + b"\xff\xff" + b"n" * 1000,
    "cell of 4 GiB": b"I" + struct.pack(">IcH", 1, b"N", 1) + b"t\xff\xff\xff\xff",
    "65535 cells of 4 GiB": b"I" + struct.pack(">Ic", 1, b"N") + b"\xff\xff" + b"t\xff\xff\xff\xff" * 2,
    "key of 65535 columns": b"U" + struct.pack(">I", 1) + b"K\xff\xff",
    "old row of 65535 columns": b"D" + struct.pack(">I", 1) + b"O\xff\xff",
    "relation with 65535 columns": b"R" + struct.pack(">I", 1) + b"a\0b\0d\xff\xff",
    "truncate of 2**32-1 relations": b"T\xff\xff\xff\xff\x00",
    "truncate of one relation too many": b"T" + struct.pack(">IB", 2, 0) + bytes(7),
    "logical message of 4 GiB": b"M" + struct.pack(">BQ", 1, 1) + b"a\0\xff\xff\xff\xff",
    "name without end": b"Y" + struct.pack(">I", 1) + b"a" * 1000,
    "name that is not UTF-8": b"Y" + struct.pack(">I", 1) + b"\xff\xfe\0b\0",
    "row without a new tuple": b"I" + struct.pack(">Ic", 1, b"O") + b"\0\0",
    "delete without an old tuple": b"D" + struct.pack(">I", 1) + b"N\0\0",
    "cell of unknown format": b"I" + struct.pack(">IcH", 1, b"N", 1) + b"x",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_count_or_length_ends_at_once_and_in_little_memory(payload: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(payload)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()

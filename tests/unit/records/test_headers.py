"""The headers of records: positions are parsed and formatted, and no header of another program ends a reader."""

from typing import Any

import pytest

from cdc.records.headers import Pairs, Position, headers_of, positions_of, sequence


class Received:
    """A message whose headers can be asked for once, as confluent-kafka has it after an error."""

    def __init__(self, found: Any) -> None:
        self._found = found
        self._asked = False

    def headers(self) -> Any:
        assert not self._asked, "a second call ends the process"
        self._asked = True
        if isinstance(self._found, BaseException):
            raise self._found
        return self._found


@pytest.mark.parametrize(
    ("found", "headers"),
    [
        ([("id", b"1"), ("id", None)], (("id", b"1"), ("id", None))),
        (None, ()),
        (SystemError("<method 'headers'> returned NULL without setting an exception"), ()),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), ()),
    ],
)
def test_headers_that_cannot_be_read_count_as_none(found: Any, headers: Pairs) -> None:
    assert headers_of(Received(found)) == headers


@pytest.mark.parametrize("index", ["00000000", "FFFFFFFF", "100000000", "FFFFFFFFFFFFFFF"])
def test_a_position_is_parsed_and_formatted(index: str) -> None:
    text = f"0badcafe-00000000000000C8-{index}"
    position = Position.parse(text)
    assert position == Position("0badcafe", 200, int(index, 16))
    assert str(position) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0badcafe-00000000000000C8",
        "0BADCAFE-00000000000000C8-00000000",
        "0badcafe-00000000000000c8-00000000",
        "0badcafe-00000000000000C8-0000000",
        "0badcafe-00000000000000C8-0000000000000000",
        "0badcafe-00000000000000C8-00000000\n",
    ],
)
def test_any_other_text_is_no_position(text: str) -> None:
    assert Position.parse(text) is None


def test_positions_of_a_stream_match_up_to_63_bits() -> None:
    match = positions_of("0badcafe")
    found = match(b"0badcafe-7FFFFFFFFFFFFFFF-00000001")
    assert found
    assert found.groups() == (b"7FFFFFFFFFFFFFFF", b"00000001")
    assert match(b"0badcafe-8000000000000000-00000001") is None
    assert match(b"0badcaff-0000000000000001-00000001") is None


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("9" * 18, 10**18 - 1), ("0", None), ("9" * 19, None), ("x", None)]
)
def test_a_sequence_number_is_a_positive_number_of_64_bits(text: str, number: int | None) -> None:
    assert sequence(text) == number

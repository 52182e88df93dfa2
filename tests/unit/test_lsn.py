"""LSNs: numbers that print as PostgreSQL prints them (A24)."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.lsn import LSN

BOUNDARIES = [0, 1, 0xFFFFFFFE, 0xFFFFFFFF, 0x1_00000000, 0x1_00000001, 0x9_FFFFFFFF, 0x10_00000000]
BOUNDARIES += [0xFFFFFFFF_FFFFFFFE, 0xFFFFFFFF_FFFFFFFF]

lsns = st.integers(0, 0xFFFFFFFF_FFFFFFFF) | st.sampled_from(BOUNDARIES)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0/0"),
        (0x16_B374D848, "16/B374D848"),
        (0xFFFFFFFF, "0/FFFFFFFF"),
        (0x1_00000000, "1/0"),
        (0x1_0000000A, "1/A"),
        (0xFFFFFFFF_FFFFFFFF, "FFFFFFFF/FFFFFFFF"),
    ],
)
def test_an_lsn_prints_as_postgresql_prints_it(number: int, text: str) -> None:
    assert str(LSN(number)) == f"{LSN(number)}" == text
    assert repr(LSN(number)) == f"LSN('{text}')"
    assert LSN.parse(text) == number


@given(lsns)
def test_parse_reads_back_what_was_printed_a24(number: int) -> None:
    assert LSN.parse(str(LSN(number))) == number
    assert LSN.parse(str(LSN(number)).lower()) == number
    assert type(LSN.parse("0/0")) is LSN


@given(lsns, lsns)
def test_lsns_compare_as_numbers_and_never_as_text_a24(left: int, right: int) -> None:
    assert (LSN(left) < LSN(right)) == (left < right)
    assert max(LSN(left), LSN(right)) == max(left, right)


def test_lsns_around_the_32_bit_boundary_ascend_although_their_texts_do_not_a24() -> None:
    ascending = [LSN(number) for number in BOUNDARIES]
    assert sorted(ascending) == ascending
    assert sorted(ascending, key=str) != ascending


@given(lsns, lsns)
def test_in_hex_of_fixed_width_lsns_sort_as_text_too(left: int, right: int) -> None:
    assert (f"{LSN(left):016X}" < f"{LSN(right):016X}") == (left < right)


@pytest.mark.parametrize(
    "text",
    ["", "/", "0", "0/", "/0", "16B374D848", "0/0/0", "G/0", "0/123456789", "123456789/0", " ", "a b/0", "0\\0"],
)
def test_anything_else_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not an LSN such as"):
        LSN.parse(text)


SIGNS_AND_SUCH = [
    "-1/0",
    "0/-1",
    "+1/0",
    "0/+1",
    "0x1/0",
    "0/0x1",
    "1_0/0",
    "0/1_0",
    " 1/0",
    "0/1 ",
    "0/1\n",
    "\uff11/0",
]


@pytest.mark.parametrize("text", SIGNS_AND_SUCH)
def test_hex_notations_of_python_are_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not an LSN such as"):
        LSN.parse(text)


part = st.text("09afAFx_+- \n", max_size=4)


@given(st.builds("{}/{}".format, part, part))
def test_a_parsed_lsn_is_a_64_bit_number_and_prints_as_written(text: str) -> None:
    try:
        lsn = LSN.parse(text)
    except ValueError:
        return
    assert 0 <= lsn < 1 << 64
    parts = [part.lstrip("0") or "0" for part in text.upper().split("/")]
    assert str(lsn) == "/".join(parts)


def test_neighbouring_boundaries_are_distinct() -> None:
    for low, high in itertools.pairwise(BOUNDARIES):
        assert LSN(low) < LSN(high)
        assert str(LSN(low)) != str(LSN(high))

"""Sizes of record batches, by the format's own rules; a real broker's opinion is in tests/integration."""

from hypothesis import given
from hypothesis import strategies as st

from cdc.records.record import Record, at_most, batch_size

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
records = st.builds(
    Record,
    st.just("topic"),
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(max_size=70_000),
    st.just(0),
    st.lists(st.tuples(text, st.none() | text | st.binary(max_size=300)), max_size=5),
    st.none(),
)


def zigzag(number: int) -> bytes:
    number <<= 1
    found = b""
    while number >= 0x80:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def sized(value: bytes | str | None) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return b"\x01" if value is None else zigzag(len(value)) + value


def written(record: Record) -> bytes:
    """The batch, field by field; the header's 61 bytes are zeros."""
    headers = b"".join(sized(name) + sized(value) for name, value in record.headers)
    body = bytes(3) + sized(record.key) + sized(record.value) + zigzag(len(record.headers)) + headers
    return bytes(61) + zigzag(len(body)) + body


@given(records)
def test_the_size_is_that_of_the_batch_written_field_by_field_c7(record: Record) -> None:
    assert batch_size(record) == len(written(record))


@given(records)
def test_the_quick_bound_is_never_too_low_c7(record: Record) -> None:
    assert at_most(record) >= batch_size(record)

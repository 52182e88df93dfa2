"""Frames that are made of copied rows are those that PostgreSQL would have sent."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import ProtocolError
from cdc.lsn import LSN
from cdc.replication import compose
from cdc.replication.frames import keepalive
from cdc.replication.messages import Begin, Commit, Insert, Relation, TupleData
from cdc.replication.values import INT8, JSONB, TEXT
from tests.unit import frames

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
OUTBOX = frames.relation(4711, "outbox", [("id", INT8), ("größe", TEXT), ("payload", JSONB)])


def copied(number: int, *cells: bytes | None) -> bytes:
    """A row of COPY in binary format, by its documentation."""
    made = struct.pack(">hiq", len(cells) + 1, 8, number)
    return made + b"".join(
        b"\xff\xff\xff\xff" if cell is None else struct.pack(">i", len(cell)) + cell for cell in cells
    )


CELLS = st.lists(st.none() | st.binary(max_size=20), min_size=3, max_size=3)


@given(number=st.integers(-(1 << 63), (1 << 63) - 1), cells=CELLS, binary=st.booleans(), first=st.booleans())
def test_a_copied_row_is_the_insert_of_the_stream(
    number: int, cells: list[bytes | None], binary: bool, first: bool
) -> None:
    rows = compose.CopiedRows(OUTBOX, binary=binary)
    made = rows.insert((HEADER if first else b"") + copied(number, *cells))
    assert made is not None
    formats = bytes(ord("n") if cell is None else ord("b" if binary else "t") for cell in cells)
    expected = Insert(4711, TupleData(formats, [cell or b"" for cell in cells]))
    assert made == (number, frames.xlog(expected))


def test_what_is_around_a_batch_is_as_in_the_stream() -> None:
    assert compose.begin(LSN(5), 77) == frames.xlog(Begin(LSN(5), 77, 0))
    assert compose.commit(LSN(5), LSN(6), 77) == frames.xlog(Commit(0, LSN(5), LSN(6), 77))
    assert compose.relation(OUTBOX) == frames.xlog(OUTBOX)
    assert keepalive(compose.keepalive(LSN(6))) == (6, False)


def test_the_end_of_a_copy_is_no_row() -> None:
    rows = compose.CopiedRows(OUTBOX, binary=True)
    assert rows.insert(b"\xff\xff") is None
    assert rows.insert(HEADER + b"\xff\xff") is None
    assert compose.copied_number(b"\xff\xff") is None
    assert compose.copied_number(HEADER + struct.pack(">hiq", 1, 8, -3)) == -3


@pytest.mark.parametrize(
    "data",
    [
        copied(1, b"a"),
        copied(1, b"a", b"b", b"c") + b"x",
        copied(1, b"a", b"b", b"c")[:-1],
        copied(1, b"a", b"b", b"c")[:-6],
        struct.pack(">hi", 4, 4) + bytes(4),
    ],
)
def test_data_of_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="copied row"):
        compose.CopiedRows(OUTBOX, binary=True).insert(data)


def test_a_relation_without_columns_has_rows() -> None:
    described = Relation(1, "s", "t", "d", ())
    assert compose.CopiedRows(described, binary=True).insert(copied(9)) == (9, frames.xlog(Insert(1, frames.row())))

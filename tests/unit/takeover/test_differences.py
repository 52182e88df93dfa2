"""Records of both programs side by side: what counts as a difference."""

import pytest

from cdc.records.partitioner import partition
from cdc.takeover.differences import Compared, counted, differences

KEY = b"o-1"
HERE = partition(KEY, 6)
HEADERS = {"id": b"e-1", "eventType": b"Placed", "cdc-position": b"x", "content-type": b"text/plain"}
OURS = Compared("orders", -1, KEY, b'{"a": 1}', HEADERS)
THEIRS = Compared("orders", HERE, KEY, b'{"a": 1}', {"id": b"e-1", "__debezium.context.taskId": b"0"})


def kinds(theirs: Compared, ours: Compared = OURS, payload: bytes | None = b'{"a": 1}') -> list[str]:
    return list(counted(list(differences("e-1", theirs, ours, payload, 6))))


def test_the_headers_that_each_program_adds_are_no_difference() -> None:
    assert kinds(THEIRS) == []


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (THEIRS._replace(topic="other"), ["topic"]),
        (THEIRS._replace(key=b'"o-1"'), ["key"]),
        (THEIRS._replace(partition=(HERE + 1) % 6), ["partition"]),
        (THEIRS._replace(value=b'{"a":1}'), ["encoding of the value"]),
        (THEIRS._replace(value=b'"{\\"a\\": 1}"'), ["encoding of the value"]),
        (THEIRS._replace(value=b'{"schema":{"type":"string"},"payload":"{\\"a\\": 1}"}'), ["encoding of the value"]),
        (THEIRS._replace(value=b'{"a":2}'), ["value"]),
        (THEIRS._replace(value=b"no JSON"), ["value"]),
        (THEIRS._replace(value=None), ["value"]),
        (THEIRS._replace(headers={"id": b"e-1", "tenant": b"x"}), ["header tenant"]),
        (THEIRS._replace(headers={"id": b"e-1", "eventType": b"other"}), ["header eventType"]),
    ],
)
def test_each_difference_is_reported_by_its_kind(theirs: Compared, expected: list[str]) -> None:
    assert kinds(theirs) == expected


def test_a_missing_header_is_not_one_without_a_value() -> None:
    ours = OURS._replace(headers={**HEADERS, "tenant": None})
    assert kinds(THEIRS._replace(headers={"id": b"e-1"}), ours) == ["header tenant"]
    assert kinds(THEIRS._replace(headers={"id": b"e-1", "tenant": None}), ours) == []

"""Log sequence numbers, formatted as PostgreSQL does so that they can be pasted into SQL, and event positions.

<https://www.postgresql.org/docs/current/datatype-pg-lsn.html>
"""

import re
from typing import Final, NamedTuple, Self

_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_POSITION: Final = re.compile(r"([0-9A-F]{16})-([0-9A-F]{8,})")


class LSN(int):
    """A byte position in the write-ahead log: a 64-bit integer that compares numerically."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse text such as `16/B374D848`. Raises ValueError for any other format."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not an LSN such as 16/B374D848")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN({str(self)!r})"


class EventPosition(NamedTuple):
    """Identity and order of an event within a stream: commit LSN of its transaction, and its index there, from 0."""

    commit_lsn: LSN
    number: int

    def __str__(self) -> str:
        return f"{self.commit_lsn:016X}-{self.number:08X}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse text such as `00000000016B3748-00000000`. Raises ValueError for any other format."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a position such as 00000000016B3748-00000000")
        return cls(LSN(int(match[1], 16)), int(match[2], 16))

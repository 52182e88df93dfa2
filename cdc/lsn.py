"""Log sequence numbers, printed the way PostgreSQL prints them so that logs can be pasted into SQL.

<https://www.postgresql.org/docs/current/datatype-pg-lsn.html>
"""

from typing import Self


class LSN(int):
    """A byte position in the write-ahead log: 64 bits, compared as a number and never as text."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `16/B374D848`. Raises ValueError for anything else."""
        high, slash, low = text.partition("/")
        if not slash or not 1 <= len(high) <= 8 or not 1 <= len(low) <= 8:
            raise ValueError(f"{text!r} is not an LSN such as 16/B374D848")
        try:
            return cls(int(high, 16) << 32 | int(low, 16))
        except ValueError:
            raise ValueError(f"{text!r} is not an LSN such as 16/B374D848") from None

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN({str(self)!r})"

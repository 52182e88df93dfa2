"""The error for a JSON value that does not match a schema: the reason, and the JSON path of the value."""

from decimal import Decimal
from typing import Self

_SHOWN = 60  # characters of a rejected value: payloads may be large, or contain data that should not be logged


class Mismatch(ValueError):
    """A value that does not match the schema; prints as `$.lines[2].qty: 3000000000 is out of range for int`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path = ""
        super().__init__(reason)

    def within(self, step: str) -> Self:
        """Prepend a step, such as `.qty` or `[2]`, to the path, and return the same mismatch."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        return f"${self.path}: {self.reason}"


def shown(value: object) -> str:
    """Format a value as JSON, truncated; objects and arrays are named only."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if isinstance(value, (int, float, Decimal)) else f'"{value}"'
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

"""Why a JSON value does not fit a schema, and where in the document it stands."""

from decimal import Decimal
from typing import Self

_SHOWN = 60  # characters of an offending value: payloads may be large, and may hold what should not be logged


class Mismatch(ValueError):
    """A value that does not fit; prints as `$.lines[2].qty: 3000000000 is out of range for int`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path = ""
        super().__init__(reason)

    def within(self, step: str) -> Self:
        """The same mismatch, seen from one level up."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        return f"${self.path}: {self.reason}"


def shown(value: object) -> str:
    """A value as JSON has it, cut short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if isinstance(value, (int, float, Decimal)) else f'"{value}"'
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

"""The result of translating a configuration: settings, and one verdict for each option."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, Literal, NamedTuple

from cdc.config.reference import names
from cdc.config.settings import Outbox

Verdict = Literal["same", "translated", "harmless", "changes records", "refused"]

VERDICTS: Final[Mapping[str, str]] = {
    "same": "the publisher does the same",
    "translated": "a setting of the publisher does the same",
    "harmless": "has no effect on records",
    "changes records": "records differ from Debezium's as described",
    "refused": "change the connector or its consumers first",
}


class Line(NamedTuple):
    """One option: what becomes of it, and how or why. Secrets of `value` are masked."""

    option: str
    value: str
    verdict: Verdict
    text: str


class Reference(NamedTuple):
    """A value that the environment must provide."""

    variable: str
    reason: str


@dataclass
class Translation:
    """Settings by section and name, lines, values to come from the environment, and notes on all records."""

    name: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def refused(self) -> list[Line]:
        """The refused options."""
        return [line for line in self.lines if line.verdict == "refused"]

    def put(self, section: str, name: str, value: object) -> None:
        """Set a setting; `columns.key` is a name within a table."""
        *tables, last = [name] if section == "kafka" else name.split(".")
        table: dict[str, Any] = reduce(
            lambda at, each: at.setdefault(each, {}), tables, self.settings.setdefault(section, {})
        )
        table[last] = value


Supports = Callable[[str, str], bool]
"""Whether a version has a setting, by its section and its name."""

ALIASES: Final = "headers, with aliases"
"""Stands for a setting's form: `column:header` in `[outbox] headers`."""


def supported(section: str, name: str) -> bool:
    """Return whether this version has a setting."""
    if name == ALIASES:
        return _has_aliases()
    return section == "kafka" or f"{section}.{name}" in names()


def _has_aliases() -> bool:
    """A version with aliases refuses one that is a header of its own; another takes the text for a column's name."""
    try:
        Outbox(headers=["column:id"])
    except ValueError:
        return True
    return False

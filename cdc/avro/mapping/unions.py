"""Choose the branch of a union for a JSON value, if several branches might accept it.

Plain values come first. A number goes to the first of int, long, decimal, float and double that represents it exactly,
else to double, else to float; an object goes to the record that matches it, and among several to the one that uses most
of its fields; any other value goes to the first branch that accepts it. If no branch matches, or more than one, Avro's
tagged form `{"branch": value}` decides. An enum's default comes last, so that it does not hide a matching branch.

All of this is tried with the value as it is. Only if no branch accepts that, it is tried with the conversions of
`cdc.avro.mapping.conversions`: so a union never converts a value that one of its branches accepts.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from cdc.avro.mapping.mismatch import Mismatch, shown

Json = object
Mapper = Callable[[Json], object]

_NUMBERS: Final = frozenset({int, float, Decimal})
_RANK: Final = {"int": 0, "long": 1, "bytes": 2, "fixed": 2, "float": 3, "double": 4}
_TAKES: Final[dict[str, frozenset[type]]] = {
    "null": frozenset({type(None)}),
    "boolean": frozenset({bool}),
    "int": frozenset({int}),
    "long": frozenset({int}),
    "float": _NUMBERS,
    "double": _NUMBERS,
    **dict.fromkeys(("string", "bytes", "fixed", "enum"), frozenset({str})),
    "array": frozenset({list}),
    **dict.fromkeys(("map", "record", "error"), frozenset({dict})),
}


def takes(kind: str, logical_type: str | None) -> frozenset[type]:
    """Return the Python types of the JSON values that an Avro type may accept."""
    if logical_type == "decimal":
        return frozenset({int, str, Decimal})
    if logical_type == "duration":
        return frozenset({dict})
    return frozenset({int, str}) if logical_type and kind in {"int", "long"} else _TAKES[kind]


@dataclass(frozen=True)
class Branch:
    """One branch other than null. `logical_type` is None if the schema has none that applies.

    `names` contains a record's fields and aliases if unknown fields are ignored: a record that would ignore every field
    of a value does not match it.
    """

    name: str
    kind: str
    logical_type: str | None
    convert: Mapper
    default: str | None = None  # of an enum; `convert` does not apply it
    names: frozenset[str] = frozenset()

    @property
    def takes(self) -> frozenset[type]:
        return takes(self.kind, self.logical_type)

    def read(self, value: Json) -> object:
        """Convert the value to this branch's datum. Raises Mismatch."""
        if self.names and isinstance(value, dict) and value and self.names.isdisjoint(value):
            raise Mismatch(f"none of its fields is a field of {self.name}")
        return self.convert(value)


class _Ambiguous(Mismatch):
    """An object that matches several branches as it is, so that no conversion may decide."""


def mapper(branches: list[Branch], converting: list[Branch] | None, *, nullable: bool) -> Mapper:
    """Return a function from a JSON value to None or (branch name, datum), the form that fastavro's writer expects.

    `branches` accept values as they are; `converting` are the same branches with conversions, None for no conversion.
    """
    choose = _chooser(branches)
    convert = None if converting is None else _chooser(converting, converts=True)

    def union(value: Json) -> tuple[str, object] | None:
        if value is None and nullable:
            return None
        try:
            return choose(value)
        except _Ambiguous:
            raise
        except Mismatch:
            if convert is None:
                raise
        return convert(value)

    return union


def _chooser(branches: list[Branch], *, converts: bool = False) -> Callable[[Json], tuple[str, object]]:
    records = [branch for branch in branches if branch.kind in {"record", "error"}]
    others = [branch for branch in branches if branch not in records]
    ranked = sorted((branch for branch in others if branch.kind in _RANK), key=lambda branch: _RANK[branch.kind])
    if converts:  # a text may be converted to a number, which then has a number's order of branches
        others = [*ranked, *(branch for branch in others if branch not in ranked)]

    def choose(value: Json) -> tuple[str, object]:
        ambiguous: list[str] = []
        if isinstance(value, dict):
            found = [(branch, datum) for branch in records for datum in _readings(branch, value)]
            found = _most_used(found, value)
            if len(found) == 1:
                return found[0][0].name, found[0][1]
            ambiguous = [branch.name for branch, _ in found]
        if not ambiguous:
            in_order = _by_number(ranked, value) if type(value) in _NUMBERS else others
            for branch in in_order:
                for datum in _readings(branch, value):
                    return branch.name, datum
            for branch in branches:
                if branch.default is not None and isinstance(value, str):
                    return branch.name, branch.default
        if isinstance(value, dict) and len(value) == 1:
            ((tag, tagged),) = value.items()
            for branch in branches:
                if branch.name == tag:
                    return tag, _tagged(branch, tagged)
        if ambiguous:
            raise _Ambiguous(
                f"an object matches several branches of the union ({', '.join(ambiguous)}): "
                f'name one, as in {{"{ambiguous[0]}": ...}}'
            )
        raise _mismatch(branches, value)

    return choose


def _readings(branch: Branch, value: Json) -> list[object]:
    """Return a list of the datum, empty if the branch does not accept the value."""
    try:
        return [branch.read(value)]
    except Mismatch:
        return []


def _most_used(found: list[tuple[Branch, object]], value: dict[str, Json]) -> list[tuple[Branch, object]]:
    """Keep the records that use the most fields of the value."""
    used = [len(branch.names & value.keys()) for branch, _ in found]
    return [one for one, count in zip(found, used, strict=True) if count == max(used)]


def _by_number(ranked: list[Branch], value: Json) -> list[Branch]:
    """Return the branches for a number in the order to try them: exact ones first, then double, then float."""
    inexact = [branch for branch in ranked if branch.kind in {"float", "double"} and not _is_exact(branch, value)]
    return [branch for branch in ranked if branch not in inexact] + inexact[::-1]


def _is_exact(branch: Branch, value: Any) -> bool:
    try:
        number = float(value)
        return bool((struct.unpack("<f", struct.pack("<f", number))[0] if branch.kind == "float" else number) == value)
    except OverflowError:
        return False


def _tagged(branch: Branch, value: Json) -> object:
    try:
        return branch.convert(value)
    except Mismatch as mismatch:
        if branch.default is not None and isinstance(value, str):
            return branch.default
        raise mismatch.within(f".{branch.name}") from None


def _mismatch(branches: list[Branch], value: Json) -> Mismatch:
    """Return the mismatch with the only candidate branch; with several, one that lists all branches."""
    candidates = branches if len(branches) == 1 else [branch for branch in branches if type(value) in branch.takes]
    if len(candidates) == 1:
        try:
            candidates[0].read(value)
        except Mismatch as mismatch:
            return mismatch
    return Mismatch(f"{shown(value)} matches no branch of the union of {', '.join(branch.name for branch in branches)}")

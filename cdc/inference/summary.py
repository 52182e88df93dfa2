"""Summarise the JSON values that were seen at one place of a payload, in memory that does not grow with the values.

`observe` adds a value to a summary, and `merge` a summary to another. A summary counts values by type and keeps what
the type's rule in `cdc.inference.schema` asks for; it keeps no payload.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from cdc.inference import texts

Json = object  # None, bool, int, Decimal, str, list or dict, as a parser of exact numbers makes them

ENOUGH: Final = 20  # distinct texts that decide about a logical type, and objects of distinct keys that are a map
NAMES: Final = 16  # distinct keys that a record may have although they vary; distinct symbols of an enum
_EARLY: Final = 64  # keys after which a map is recognised while values are still coming, so that memory stays flat
_MOST: Final = 1000  # keys after which any object is a map
_FILLED: Final = 2 / 3  # a record's fields are there in at least this share of objects, on average
_LONG: Final = range(-(1 << 63), 1 << 63)


@dataclass(slots=True)
class Numbers:
    """Numbers; those with a point or an exponent are fractions, `1.0` too."""

    integers: int = 0
    fractions: int = 0
    wide: int = 0  # integers beyond 64 bits
    digits: int = 0  # before the point
    scale: int = 0  # digits after the point
    doubles: bool = True  # each number equals the number that its double prints
    unions: bool = True  # the same, without the integers that a long holds

    def observe(self, value: int | Decimal) -> None:
        exact = Decimal(value)
        whole = isinstance(value, int)
        self.integers += whole
        self.fractions += not whole
        wide = whole and value not in _LONG
        self.wide += wide
        self.digits = max(self.digits, exact.adjusted() + 1 if exact else 0)
        self.scale = max(self.scale, -min(int(exact.as_tuple().exponent), 0))
        if self.doubles or (self.unions and (wide or not whole)):
            same = _is_double(exact)
            self.doubles &= same
            self.unions &= same or (whole and not wide)

    def merge(self, other: "Numbers") -> None:
        self.integers += other.integers
        self.fractions += other.fractions
        self.wide += other.wide
        self.digits = max(self.digits, other.digits)
        self.scale = max(self.scale, other.scale)
        self.doubles &= other.doubles
        self.unions &= other.unions


@dataclass(slots=True)
class Strings:
    """Texts: the notations that all of them have, and up to ENOUGH distinct ones while that says something."""

    count: int = 0
    notations: frozenset[str] = texts.ALL
    distinct: set[str] = field(default_factory=set)

    def observe(self, value: str) -> None:
        self.count += 1
        if self.notations:
            self.notations = self.notations & texts.notations(value)
        self._keep({value})

    def merge(self, other: "Strings") -> None:
        self.count += other.count
        self.notations &= other.notations
        self._keep(other.distinct)

    def _keep(self, values: set[str]) -> None:
        if not self.notations:
            self.distinct.clear()
        elif len(self.distinct) < ENOUGH:
            self.distinct |= values


@dataclass(slots=True)
class Objects:
    """Objects: a summary per key, or one for the values of all keys once they are recognised as a map."""

    is_root: bool = False
    count: int = 0
    fields: "dict[str, Summary]" = field(default_factory=dict)
    values: "Summary | None" = None
    refused: str | None = None  # a key that is no name to Avro
    previous: frozenset[str] = frozenset()
    pairs: int = 0  # of objects with keys, one after the other
    disjoint: int = 0  # of these, pairs without a common key

    def observe(self, value: dict[str, Json]) -> None:
        self.count += 1
        known = len(self.fields)
        for key, item in value.items():
            observe(self._place(key), item)
        if value and self.values is None:
            keys = frozenset(value)
            self.pairs += bool(self.previous)
            self.disjoint += bool(self.previous) and keys.isdisjoint(self.previous)
            self.previous = keys
            if known < len(self.fields):
                self._collapse()

    def merge(self, other: "Objects") -> None:
        self.count += other.count
        self.pairs += other.pairs
        self.disjoint += other.disjoint
        self.refused = other.refused if self.refused is None else self.refused
        if other.values is not None:
            self.values = self.all_values()
            self.fields = {}
            merge(self.values, other.values)
        for key, summary in other.fields.items():
            merge(self._place(key), summary)
        self._collapse()

    def _place(self, key: str) -> "Summary":
        if self.refused is None and not texts.is_name(key):
            self.refused = key
        return self.values if self.values is not None else self.fields.setdefault(key, Summary())

    def _collapse(self) -> None:
        size = len(self.fields)
        if not self.is_root and size > _EARLY and (size > _MOST or self.is_map):
            self.values, self.fields = self.all_values(), {}

    @property
    def is_map(self) -> bool:
        """Whether the keys are data: they vary from object to object, and their values have one type."""
        if self.is_root:
            return False
        if self.values is not None or self.refused is not None:
            return True
        return self._varies and len({kind for each in self.fields.values() for kind in each.kinds}) == 1

    @property
    def _varies(self) -> bool:
        size = len(self.fields)
        if size > NAMES:
            return sum(each.count for each in self.fields.values()) < _FILLED * size * self.count
        return size > 2 and self.disjoint * 2 > self.pairs

    def all_values(self) -> "Summary":
        """Return the summary of the values of all keys."""
        if self.values is not None:
            return self.values
        together = Summary()
        for each in self.fields.values():
            merge(together, each)
        return together


@dataclass(slots=True)
class Summary:
    """All values of one place; the parts of types that were not seen are None."""

    count: int = 0
    nulls: int = 0
    booleans: int = 0
    numbers: Numbers | None = None
    strings: Strings | None = None
    items: "Summary | None" = None  # of arrays
    objects: Objects | None = None

    @property
    def kinds(self) -> list[str]:
        """The JSON types of the values, without null."""
        seen = {
            "number": self.numbers,
            "boolean": self.booleans,
            "string": self.strings,
            "array": self.items,
            "object": self.objects,
        }
        return [name for name, part in seen.items() if part]


def observe(summary: Summary, value: Json) -> None:
    """Add a value."""
    summary.count += 1
    if value is None:
        summary.nulls += 1
    elif isinstance(value, bool):
        summary.booleans += 1
    elif isinstance(value, (int, Decimal)):
        summary.numbers = summary.numbers or Numbers()
        summary.numbers.observe(value)
    elif isinstance(value, str):
        summary.strings = summary.strings or Strings()
        summary.strings.observe(value)
    elif isinstance(value, list):
        summary.items = summary.items or Summary()
        for item in value:
            observe(summary.items, item)
    elif isinstance(value, dict):
        summary.objects = summary.objects or Objects()
        summary.objects.observe(value)
    else:
        raise TypeError(f"{type(value).__name__} is no JSON value of exact numbers")


def merge(summary: Summary, other: Summary) -> None:
    """Add all values of another summary."""
    summary.count += other.count
    summary.nulls += other.nulls
    summary.booleans += other.booleans
    if other.numbers:
        summary.numbers = summary.numbers or Numbers()
        summary.numbers.merge(other.numbers)
    if other.strings:
        summary.strings = summary.strings or Strings()
        summary.strings.merge(other.strings)
    if other.items:
        summary.items = summary.items or Summary()
        merge(summary.items, other.items)
    if other.objects:
        summary.objects = summary.objects or Objects()
        summary.objects.merge(other.objects)


def _is_double(number: Decimal) -> bool:
    try:
        return Decimal(repr(float(number))) == number
    except (OverflowError, ArithmeticError):
        return False

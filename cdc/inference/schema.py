"""Make an Avro schema of a summary: one under which every value that was seen is encoded, and no narrower than needed.

Every field is optional. A guess that later rows may prove wrong is a remark, which stands in the `doc` of its field.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cdc.inference import names, texts
from cdc.inference.summary import ENOUGH, NAMES, Numbers, Objects, Strings, Summary

Schema = Any  # JSON of an Avro schema

PRECISION: Final = 38
_SCALE: Final = 2
_WIDEST: Final = 76  # digits beyond which a double is preferred if it holds every value
_LIMIT: Final = 1000  # digits that no decimal exceeds
_NOTHING: Final = ["null", "string"]
_LOGICAL: Final[dict[str, dict[str, str]]] = {
    "date": {"type": "int", "logicalType": "date"},
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
    "uuid": {"type": "string", "logicalType": "uuid"},
}


@dataclass(frozen=True)
class Wishes:
    """What the user asked for: enums for texts of few values, doubles for fractions."""

    enums: bool = False
    doubles: bool = False


@dataclass(frozen=True)
class Remark:
    """An uncertainty at a place of the payload."""

    path: str
    text: str


@dataclass
class Inference:
    """Makes schemas for one contract; `taken` are full names of types that it must not define, and gets its own."""

    namespace: str
    wishes: Wishes
    taken: set[str]
    remarks: list[Remark] = field(default_factory=list)

    def fields(self, objects: Objects, record: str, path: str, known: frozenset[str] = frozenset()) -> list[Schema]:
        """Return the fields of a record, but for those that are `known`, in the order in which they came."""
        return [
            self._field(name, summary, record, f"{path}.{name}")
            for name, summary in objects.fields.items()
            if name not in known and texts.is_name(name)
        ]

    def _field(self, name: str, summary: Summary, record: str, path: str) -> Schema:
        before = len(self.remarks)
        branches = self._branches(summary, f"{record}_{name[:1].upper()}{name[1:]}", path)
        if not branches:
            branches = _NOTHING[1:]
            self._remark(path, "no row had a value other than null, so that its type is a guess")
        made = {"name": name, "type": ["null", *branches], "default": None}
        # The fields of a record within have docs of their own.
        own = [remark.text for remark in self.remarks[before:] if "." not in remark.path[len(path) :]]
        return made | ({"doc": f"Inferred: {'; '.join(own)}."} if own else {})

    def _value(self, summary: Summary, name: str, path: str) -> Schema:
        """Return the type of items or values, which are null only where null was seen."""
        branches = self._branches(summary, name, path)
        if not branches:
            self._remark(path, "no row had a value here, so that its type is a guess")
            return _NOTHING
        if summary.nulls:
            return ["null", *branches]
        return branches[0] if len(branches) == 1 else branches

    def _branches(self, summary: Summary, name: str, path: str) -> list[Schema]:
        """Return the types of the values other than null."""
        alone = len(summary.kinds) == 1
        scalars = [*self._numbers(summary.numbers, path, alone=alone)] if summary.numbers else []
        scalars += ["boolean"] if summary.booleans else []
        if summary.strings:
            text = self._string(summary.strings, name, path, alone=alone)
            # Of types that accept a text, the first one gets it.
            scalars.insert(next((at for at, each in enumerate(scalars) if _is_decimal(each)), len(scalars)), text)
        parts = []
        if summary.items:
            items = self._value(summary.items, f"{name}_Item", f"{path}[]")
            parts.append({"type": "array", "items": items})
        if summary.objects:
            parts.append(self._object(summary.objects, name, path))
        if not alone and summary.kinds:
            self._remark(path, f"values of several types: {', '.join(summary.kinds)}")
        return [*scalars, *parts]

    def _numbers(self, numbers: Numbers, path: str, *, alone: bool) -> Iterator[Schema]:
        if not numbers.fractions and not numbers.wide:
            yield "long"
            return
        if not alone:
            if numbers.integers > numbers.wide:
                yield "long"
            yield "double" if numbers.unions else self._decimal(numbers, path)
            return
        needed = numbers.digits + numbers.scale
        if numbers.doubles and (self.wishes.doubles or needed > _WIDEST):
            yield "double"
            return
        if self.wishes.doubles:
            self._remark(path, "a decimal, because doubles would round some of the numbers")
        yield self._decimal(numbers, path)

    def _decimal(self, numbers: Numbers, path: str) -> Schema:
        scale = min(max(numbers.scale, _SCALE), _LIMIT)
        precision = max(PRECISION, min(numbers.digits + scale, _LIMIT))
        if numbers.wide:
            self._remark(path, "integers beyond 64 bits")
        if precision > PRECISION:
            self._remark(path, f"numbers of more than {PRECISION} digits")
        return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}

    def _string(self, strings: Strings, name: str, path: str, *, alone: bool) -> Schema:
        for notation, schema in _LOGICAL.items():
            if alone and notation in strings.notations and len(strings.distinct) >= ENOUGH:
                self._remark(path, f"each of {strings.count} texts was a {notation}")
                return schema
        few = len(strings.distinct) <= NAMES and strings.count >= 2 * len(strings.distinct)
        if self.wishes.enums and alone and "symbol" in strings.notations and few:
            self._remark(path, f"{strings.count} texts had only these values")
            return {
                "type": "enum",
                "name": names.free(name, self.taken, self.namespace),
                "symbols": sorted(strings.distinct),
            }
        return "string"

    def _object(self, objects: Objects, name: str, path: str) -> Schema:
        if objects.is_map or not objects.fields:
            if objects.refused is not None:
                self._remark(path, f"a map, because Avro does not accept {objects.refused!r} as the name of a field")
            elif objects.fields or objects.values:
                self._remark(path, "a map, because its keys vary from object to object")
            return {"type": "map", "values": self._value(objects.all_values(), f"{name}_Value", f"{path}{{}}")}
        own = names.free(name, self.taken, self.namespace)
        return {"type": "record", "name": own, "fields": self.fields(objects, own, path)}

    def _remark(self, path: str, text: str) -> None:
        self.remarks.append(Remark(path, text))


def record(objects: Objects, name: str, doc: str, wishes: Wishes, taken: set[str]) -> tuple[Schema, list[Remark]]:
    """Return the contract of whole payloads under a full name, and its remarks.

    It lacks the fields whose names Avro refuses, since a contract cannot be a map: payloads with such a field do not
    match it.
    """
    namespace, _, short = name.rpartition(".")
    inference = Inference(namespace, wishes, taken)
    fields = inference.fields(objects, short, "$")
    made = {"type": "record", "name": short, **({"namespace": namespace} if namespace else {})}
    return made | {"doc": doc, "fields": fields}, inference.remarks


def _is_decimal(schema: Schema) -> bool:
    return isinstance(schema, dict) and schema.get("logicalType") == "decimal"

"""Random schemas and values: compiled code yields the bytes or the message of the mapping and fastavro's writer."""

import io
import itertools
from decimal import Decimal
from typing import Any

import fastavro
import fastavro.validation
from hypothesis import given
from hypothesis import strategies as st

from cdc.avro.compiled import compiler
from cdc.avro.mapping import convert
from cdc.avro.mapping.rules import Rules
from tests.examples import examples
from tests.unit.schemas import anything

HEADER = b"header"
LOGICAL: list[Any] = [
    {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2},
    {"type": "string", "logicalType": "uuid"},
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    *(
        {"type": "long", "logicalType": f"{local}timestamp-{unit}"}
        for local in ("", "local-")
        for unit in ("millis", "micros", "nanos")
    ),
    {"type": "string", "logicalType": "nothing known"},
]
FIXED_LOGICAL: list[Any] = [
    {"size": 12, "logicalType": "duration"},
    {"size": 16, "logicalType": "uuid"},
    {"size": 3, "logicalType": "decimal", "precision": 5, "scale": 1},
    {"size": 2},
]
PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "string", "bytes"]
TEXTS = [
    "", "A", "B", "x", "\u00e9", "\u20ac", "\ud800", "QUI=", "QUI", "QU", "1.5", "-1234.56", "1e9", "ab\x00",
    "00112233-4455-6677-8899-aabbccddeeff", "2026-01-31", "17:45:00.123", "24:00:00", "2026-01-31T17:45:00Z",
    "2026-01-31 17:45:00.123456+01", "2026-01-31T17:45:00.123456789-0130", "2026-01-31T17:45", "2026-02-30T17:45:00Z",
    "5", "-1.0", "1e3", "01", "NaN", "-Infinity", "9223372036854775808", "00112233445566778899AABBCCDDEEFF",
    "{00112233-4455-6677-8899-aabbccddeeff}", "2026-01-31t17:45:00z", "2026-01-31 17:45:00,5 +01:00:01", "20260131",
    "1769881500123", "2026-01-31T00:00:00Z", "17:45:00,1234567000",
    "2026-01-31T17:45:00.5", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 63, 8191, 8192, 8193, (1 << 31) - 1, -(1 << 31), 1 << 31, (1 << 63) - 1, -(1 << 63), 1 << 63, 10**400,
    1 << 13, 1 << 20, 1 << 27, 1 << 34, 1 << 41, 1 << 55, -8192, -8193, 16777217,
    0.0, -0.0, 0.1, 0.5, 1e39, 1e308, float("inf"), float("nan"), Decimal("0.1"), Decimal("12.345"), Decimal("1e400"),
    1.0, Decimal("1.0"), Decimal("1e3"), Decimal("1769881500123.0"), Decimal("1769881500123.5"), Decimal("20484.0"),
    Decimal("9223372036854775808.0"), Decimal("-0.0"),
]  # fmt: skip
leaves = st.one_of(
    st.sampled_from([None, True, False]),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from([[2026, 1, 31], [17, 45], [2026, 1, 31, 17, 45, 1, 500_000_000]]),
    st.fixed_dictionaries({"months": st.just(1), "days": st.sampled_from([2, -1]), "millis": st.just(3)}),
)


class Drawn:
    """One random schema: its named types by number, and the number of unfinished ones, which may be referred to."""

    def __init__(self, draw: st.DrawFn, logical: bool, defaults: bool) -> None:
        self.draw = draw
        self.logical = logical
        self.defaults = defaults
        self.numbers = itertools.count()
        self.named: list[str] = []

    def any(self, depth: int, *, union: bool = True) -> Any:
        kinds = ["primitive", "primitive", "enum", "fixed"]
        kinds += ["logical"] if self.logical else []
        kinds += ["array", "map", "record", "record"] if depth else []
        kinds += ["union", "nullable"] if union and depth else []
        kinds += ["reference"] if self.named else []
        kind = self.draw(st.sampled_from(kinds))
        if kind == "primitive":
            name = self.draw(st.sampled_from(PRIMITIVES))
            return self.draw(st.sampled_from([name, {"type": name}]))
        if kind == "logical":
            return self.draw(st.sampled_from(LOGICAL))
        if kind == "reference":
            return self.draw(st.sampled_from(self.named))
        if kind == "array":
            return {"type": kind, "items": self.any(depth - 1)}
        if kind == "map":
            return {"type": kind, "values": self.any(depth - 1)}
        if kind in ("union", "nullable"):
            return self.union(depth, 1 if kind == "nullable" else 3)
        return getattr(self, kind)(depth)

    def union(self, depth: int, size: int) -> Any:
        branches = [self.any(depth - 1, union=False) for _ in range(size)]
        branches += ["null"] if size == 1 or self.draw(st.booleans()) else []
        return list(
            {convert.type_name(branch): branch for branch in branches[:: self.draw(st.sampled_from([1, -1]))]}.values()
        )

    def name(self, letter: str) -> str:
        return f"{self.draw(st.sampled_from(['', 'a.', 'a_']))}{letter}{next(self.numbers)}"

    def enum(self, _depth: int) -> Any:
        name = self.name("E")
        self.named.append(name)
        symbols = self.draw(st.sampled_from([["A"], ["A", "B"], ["x", "B", "A"]]))
        return {"type": "enum", "name": name, "symbols": symbols} | self.draw(
            st.sampled_from([{}, {"default": "A"}] if self.defaults else [{}])
        )

    def fixed(self, _depth: int) -> Any:
        name = self.name("F")
        self.named.append(name)
        more = self.draw(st.sampled_from(FIXED_LOGICAL)) if self.logical else {"size": self.draw(st.integers(0, 3))}
        return {"type": "fixed", "name": name, **more}

    def record(self, depth: int) -> Any:
        name = self.name("R")
        self.named.append(name)
        fields = []
        for key in self.draw(st.sampled_from(["", "a", "ab", "abc", "ba"])):
            field = {"name": key, "type": self.any(depth - 1 if depth else 0)}
            if self.defaults:
                field |= self.draw(
                    st.sampled_from([{}, {"aliases": ["c", "d"]}, {"default": self.default(field["type"])}])
                )
            fields.append(field)
        return {"type": "record", "name": name, "fields": fields}

    def default(self, schema: Any) -> Any:
        """A default that may be invalid, which makes the contract invalid."""
        first = schema[0] if isinstance(schema, list) else schema
        kind = first["type"] if isinstance(first, dict) else first
        fitting: dict[str, Any] = {
            "null": None,
            "boolean": True,
            "array": [],
            "map": {},
            "enum": "A",
            "record": {},
            "bytes": "",
            "string": "",
        }
        return fitting.get(kind, 1)


@st.composite
def cases(draw: st.DrawFn, *, logical: bool = True, defaults: bool = True) -> tuple[Any, Any]:
    """A schema, and a value that matches it or nearly does."""
    drawn = Drawn(draw, logical, defaults)
    schema = drawn.record(2)
    parsed: Any
    try:
        parsed = fastavro.parse_schema(schema, named_schemas={})
    except Exception:
        parsed = fastavro.parse_schema({"type": "record", "name": "Empty", "fields": []}, named_schemas={})
    wrong = draw(st.sampled_from([0, 0, 0.04, 0.15]))
    return parsed, _value(draw, parsed, parsed["__named_schemas"], 6, wrong)


def _value(draw: st.DrawFn, schema: Any, named: dict[str, Any], depth: int, wrong: float) -> Any:
    """A value that usually matches; leaves are drawn from lists of matching and other values."""
    if wrong and draw(st.floats(0, 1)) < wrong:
        return draw(anything)
    schema = convert.resolved(schema, named)
    if isinstance(schema, list):
        branch = draw(st.sampled_from(schema)) if schema else "null"
        if depth < 1 and "null" in schema:
            return None
        value = _value(draw, branch, named, depth - 1, wrong)
        return {convert.type_name(branch): value} if draw(st.integers(0, 5)) == 0 else value
    kind = schema["type"]
    few = st.integers(0, 2 if depth > 0 else 0)
    if kind == "array":
        return [_value(draw, schema["items"], named, depth - 1, wrong) for _ in range(draw(few))]
    if kind == "map":
        return {key: _value(draw, schema["values"], named, depth - 1, wrong) for key in "xé"[: draw(few)]}
    if kind == "record":
        if depth < -3:
            return None
        value = {}
        for field in schema["fields"]:
            if "default" in field and (depth < 1 or draw(st.booleans())):
                continue
            key = draw(st.sampled_from([field["name"], *field.get("aliases", ())]))
            value[key] = _value(draw, field["type"], named, depth - 1, wrong)
        if wrong and draw(st.integers(0, 9)) == 0:
            value[draw(st.sampled_from("abcdz"))] = 1
        return value
    if "logicalType" in schema:
        return draw(leaves)
    return draw(_fitting(schema))


def _fitting(schema: Any) -> st.SearchStrategy[Any]:
    kind = schema["type"]
    ints = [number for number in NUMBERS if type(number) is int]
    if kind == "fixed":
        return st.sampled_from(["é" * schema["size"], "A" * schema["size"], "QUI="])
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.sampled_from([number for number in ints if -(1 << 31) <= number < 1 << 31]),
        "long": st.sampled_from([number for number in ints if -(1 << 63) <= number < 1 << 63]),
        "float": st.sampled_from([0, 1, 0.5, 0.1, -0.0]),
        "double": st.sampled_from([0, 1, 0.5, 0.1, 1e300]),
        "string": st.sampled_from(TEXTS) | st.text(max_size=3),
        "bytes": st.sampled_from(["", "QUI=", "A", "é"]),
        "enum": st.sampled_from(
            [*schema.get("symbols", "A"), "Z"] if "default" in schema else schema.get("symbols", "A")
        ),
    }[kind]


def outcome(schema: Any, rules: Rules, value: Any, *, compiled: bool) -> bytes | str:
    """The bytes, or the type and text of the error."""
    try:
        if compiled:
            return compiler.compile_encoder(schema, rules)(value, HEADER)
        buffer = io.BytesIO()
        buffer.write(HEADER)
        fastavro.schemaless_writer(buffer, schema, convert.mapper(schema, rules)(value))
        return buffer.getvalue()
    except RecursionError:
        return "RecursionError"
    except (ValueError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"


rules = st.builds(
    Rules,
    st.sampled_from(["reject", "ignore"]),
    st.sampled_from(["avro-json", "base64"]),
    st.sampled_from(["exact", "truncate"]),
)


@given(cases(), rules)
@examples(3000)
def test_compiled_code_matches_mapping_and_fastavro_in_bytes_and_messages(case: tuple[Any, Any], how: Rules) -> None:
    schema, value = case
    assert outcome(schema, how, value, compiled=True) == outcome(schema, how, value, compiled=False)


@given(cases(logical=False, defaults=False))
@examples(2000)
def test_values_that_fastavro_rejects_are_rejected(case: tuple[Any, Any]) -> None:
    schema, value = case
    got = outcome(schema, Rules(), value, compiled=True)
    if isinstance(got, str):
        return
    body = io.BytesIO(got[len(HEADER) :])
    read = fastavro.schemaless_reader(body, schema, None)
    assert body.read() == b"", "bytes behind the body"
    assert fastavro.validation.validate(read, schema, raise_errors=False)
    assert _same(schema, schema["__named_schemas"], value, read)


def _same(schema: Any, named: dict[str, Any], value: Any, read: Any) -> bool:
    """Whether the decoded value equals the given one, in a union as any branch or the tagged one."""
    schema = convert.resolved(schema, named)
    if isinstance(schema, list):
        tagged = isinstance(value, dict) and len(value) == 1
        return any(
            _same(branch, named, value, read)
            or (
                tagged
                and value.keys() == {convert.type_name(branch)}
                and _same(branch, named, next(iter(value.values())), read)
            )
            for branch in schema
        )
    kind = schema["type"]
    if kind == "record":
        return (
            isinstance(value, dict)
            and isinstance(read, dict)
            and value.keys() == read.keys() == {field["name"] for field in schema["fields"]}
            and all(
                _same(field["type"], named, value[field["name"]], read[field["name"]]) for field in schema["fields"]
            )
        )
    if kind == "map":
        return (
            isinstance(value, dict)
            and value.keys() == read.keys()
            and all(_same(schema["values"], named, value[key], read[key]) for key in value)
        )
    if kind == "array":
        return (
            isinstance(value, list)
            and isinstance(read, list)
            and len(value) == len(read)
            and all(_same(schema["items"], named, *pair) for pair in zip(value, read, strict=True))
        )
    if kind in {"bytes", "fixed"}:
        return isinstance(value, str) and isinstance(read, bytes) and value.encode("latin-1", "replace") == read
    if kind in {"float", "double"}:
        given = isinstance(value, (int, float, Decimal)) and type(value) is not bool and type(read) is float
        return given and abs(float(value) - read) <= abs(float(value)) * 1e-6
    return type(value) is type(read) and bool(value == read)

"""Random Avro schemas, each with JSON values that fit it and what a consumer must see of them."""

import itertools
from typing import Any, NamedTuple

from hypothesis import strategies as st

Values = st.SearchStrategy[tuple[Any, Any]]  # (JSON value, datum as fastavro reads it)


class Typed(NamedTuple):
    """A schema and values of it."""

    schema: Any
    values: Values


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def _same(values: st.SearchStrategy[Any]) -> Values:
    return values.map(lambda value: (value, value))


def _bytes(size: int | None = None) -> Values:
    binary = st.binary(min_size=size or 0, max_size=6 if size is None else size)
    return binary.map(lambda data: (data.decode("latin-1"), data))


PLAIN: dict[str, Values] = {
    "null": _same(st.none()),
    "boolean": _same(st.booleans()),
    "int": _same(st.integers(-(1 << 31), (1 << 31) - 1)),
    "long": _same(st.integers(-(1 << 63), (1 << 63) - 1)),
    "float": _same(st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "double": _same(st.floats(allow_nan=False, allow_infinity=False)),
    "string": _same(_texts),
}


@st.composite
def records(draw: st.DrawFn, *, with_bytes: bool = True) -> Typed:
    """A record of up to four fields, nested up to three deep."""
    return _record(draw, itertools.count(), 3, with_bytes)


def _any(draw: st.DrawFn, names: "itertools.count[int]", depth: int, with_bytes: bool) -> Typed:
    kinds = [*PLAIN, "enum", *(["bytes", "fixed"] if with_bytes else [])]
    kinds += ["array", "map", "record", "nullable"] if depth else []
    kind = draw(st.sampled_from(kinds))
    if kind in PLAIN:
        return Typed(draw(st.sampled_from([kind, {"type": kind}])), PLAIN[kind])
    if kind == "bytes":
        return Typed(kind, _bytes())
    if kind == "fixed":
        size = draw(st.integers(0, 4))
        return Typed({"type": kind, "name": f"F{next(names)}", "size": size}, _bytes(size))
    if kind == "enum":
        symbols = draw(st.sampled_from([["A"], ["A", "B"], ["x_1", "y", "z"]]))
        return Typed({"type": kind, "name": f"E{next(names)}", "symbols": symbols}, _same(st.sampled_from(symbols)))
    if kind == "record":
        return _record(draw, names, depth - 1, with_bytes)
    inner = _any(draw, names, depth - 1, with_bytes)
    if kind == "array":
        lists = st.lists(inner.values, max_size=3)
        return Typed({"type": kind, "items": inner.schema}, lists.map(_unzip))
    if kind == "map":
        maps = st.dictionaries(_texts, inner.values, max_size=3)
        return Typed({"type": kind, "values": inner.schema}, maps.map(_split))
    if inner.schema in ("null", {"type": "null"}) or isinstance(inner.schema, list):
        return inner
    branches = draw(st.sampled_from([["null", inner.schema], [inner.schema, "null"]]))
    return Typed(branches, st.one_of(_same(st.none()), inner.values))


def _record(draw: st.DrawFn, names: "itertools.count[int]", depth: int, with_bytes: bool) -> Typed:
    name = f"R{next(names)}"
    fields = {
        key: _any(draw, names, depth, with_bytes) for key in draw(st.sampled_from(["", "a", "ab", "abc", "abcd"]))
    }
    schema = {
        "type": "record",
        "name": name,
        "fields": [{"name": key, "type": field.schema} for key, field in fields.items()],
    }
    return Typed(schema, st.fixed_dictionaries({key: field.values for key, field in fields.items()}).map(_split))


def _unzip(pairs: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _split(values: dict[str, tuple[Any, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {key: pair[0] for key, pair in values.items()}, {key: pair[1] for key, pair in values.items()}


anything: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.sampled_from([1 << 31, -(1 << 31) - 1, 1 << 63, 3_000_000_000, 1.5, 1e39]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["", "A", "x"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=5,
)


def disturbed(draw: st.DrawFn, value: Any) -> Any:
    """The value with one part of it replaced by anything."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: disturbed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], disturbed(draw, value[at]), *value[at + 1 :]]
    return draw(anything)

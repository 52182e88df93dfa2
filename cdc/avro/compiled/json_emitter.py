"""The parts of generated source that are specific to JSON: names of fields, texts of values, and separators."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from fastavro.types import DictSchema

from cdc.avro import json_values
from cdc.avro.compiled import binary, source
from cdc.avro.compiled.emitter import WITHIN, Emitter
from cdc.avro.json_values import JsonForm, quote
from cdc.avro.mapping import logical
from cdc.avro.mapping.primitives import base64_bytes


def _characters(value: str) -> str:
    value.encode("latin-1")
    return quote(value)


def _base64(value: object) -> str:
    base64_bytes(value)  # accepts the canonical form only
    return f'"{value}"'


def _logical(definition: DictSchema, form: JsonForm, *, truncates: bool) -> Callable[[object], str] | None:
    """Return a function from a JSON value to the text of a logical type; None if no logical type applies."""
    convert = (logical.truncating(definition) if truncates else None) or logical.mapper(definition)
    if convert is None:
        return None
    write = json_values.logical_type(definition, form)
    if definition["logicalType"] == "uuid" and definition["type"] == "string":
        return write  # it converts by itself
    if definition["logicalType"] == "decimal":
        convert = logical.unscaled(definition)
    return lambda value: write(convert(value))


_NAMES: Final[dict[str, object]] = {
    "Misfit": binary.Misfit,
    "misfit": binary.misfit,
    "isfinite": binary.NAMES["isfinite"],
    "quote": quote,
    "double": lambda value: json_values.double(binary.number(value)),
    "single": lambda value: json_values.single(binary.number(value)),
    "characters": _characters,
    "base64": _base64,
    "base64_bytes": base64_bytes,
}


class JsonEmitter(Emitter):
    """Appends text: a value's JSON, as `cdc.avro.json_values` writes it."""

    globals = _NAMES

    def __init__(self, *given: Any, form: JsonForm, **more: Any) -> None:
        super().__init__(*given, **more)
        self._form = form

    def _index(self, index: int) -> list[str]:  # noqa: ARG002 - a union has no trace in JSON
        return []

    def _null(self, index: int) -> list[str]:  # noqa: ARG002 - likewise
        return ["'null'"]

    def _label(self, field: DictSchema, number: int) -> list[str]:
        return [repr(f"{',' if number else '{'}{quote(field['name'])}:")]

    def _closing(self, record: DictSchema) -> list[str]:
        return ["'}'" if record["fields"] else "'{}'"]

    def _default(self, field: DictSchema) -> str:
        text: str = super()._default(field)  # an object of this field
        return text[len(quote(field["name"])) + 2 : -1]

    def _collection(self, schema: DictSchema, variable: str, before: list[str]) -> Iterator[str]:
        array = schema["type"] == "array"
        item, key = f"{variable}_item", f"{variable}_key"
        start, end = "[]" if array else "{}"
        parts = schema["items" if array else "values"]
        line = self._line(parts, item)
        items = f"for {item} in {variable}" if array else f"for {key}, {item} in {variable}.items()"
        if line and not line.statements:
            text = line.parts[0] if array else f"quote({key}) + ':' + ({line.parts[0]})"
            yield from source.out([*before, f"'{start}' + ','.join([{text} {items}]) + '{end}'"])
            return
        yield f"if {variable}:"
        yield from source.indented(source.out([*before, repr(start)]))
        yield f"    {items}:"
        yield from source.indented(self._write(parts, item, [] if array else [f"quote({key})", "':'"]), 2)
        yield "        out.append(',')"
        yield f"    out[-1] = {end!r}"
        yield "else:"
        yield from source.indented(source.out([*before, repr(start + end)]))

    def _leaf(self, definition: DictSchema, variable: str) -> source.Snippet:
        return source.Snippet([], [self._text(definition, variable)])

    def _text(self, definition: DictSchema, variable: str) -> str:
        """Return the expression for a value of a type without branches."""
        kind: str = definition["type"]
        convert = _logical(definition, self._form, truncates=self._truncates)
        if convert:
            return f"{self._name(source.word(definition['logicalType']), convert)}({variable})"
        if kind in WITHIN:
            asked = "" if self._typed else f"type({variable}) is int and "
            mark = '"' if kind == "long" and self._form.longs == "string" else ""
            return f"f'{mark}{{{variable}}}{mark}' if {asked}{WITHIN[kind].format(variable)} else misfit()"
        if kind == "double":
            return f"repr({variable}) if type({variable}) is float and isfinite({variable}) else double({variable})"
        if kind == "float":
            return f"single({variable})"
        if kind == "boolean":
            return f"'true' if {variable} is True else 'false' if {variable} is False else misfit()"
        if kind == "null":
            return f"'null' if {variable} is None else misfit()"
        if kind == "enum":
            return self._enum(definition, variable)
        if kind == "string":
            return f"quote({variable})"
        avro_json = self._rules.bytes_as == "avro-json"
        data = f"{'characters' if avro_json else 'base64'}({variable})"
        if kind == "bytes":
            return data
        size = f"len({variable if avro_json else f'base64_bytes({variable})'})"
        return f"{data} if {size} == {definition['size']} else misfit()"

    def _enum(self, schema: DictSchema, variable: str) -> str:
        symbols = {symbol: quote(symbol) for symbol in schema["symbols"]}
        table = self._name(source.word(schema["name"]), symbols)
        if schema.get("default") is None:
            return f"{table}[{variable}]"
        default = symbols[schema["default"]]
        return f"{table}.get({variable}, {default!r}) if type({variable}) is str else misfit()"

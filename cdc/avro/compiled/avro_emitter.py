"""The parts of generated source that are specific to Avro's binary encoding: values, counts and indexes of branches."""

from collections.abc import Iterator
from typing import Final

from fastavro.types import DictSchema

from cdc.avro.compiled import binary, source
from cdc.avro.compiled.emitter import Emitter

_INTEGERS: Final = {"int": "integer", "long": "long"}


class AvroEmitter(Emitter):
    """Appends bytes: a value's Avro encoding."""

    globals = binary.NAMES

    def _index(self, index: int) -> list[str]:
        return [repr(binary.size(index))]

    def _null(self, index: int) -> list[str]:
        return self._index(index)

    def _label(self, field: DictSchema, number: int) -> list[str]:  # noqa: ARG002 - names are not encoded
        return []

    def _closing(self, record: DictSchema) -> list[str]:  # noqa: ARG002 - nothing follows the fields
        return []

    def _collection(self, schema: DictSchema, variable: str, before: list[str]) -> Iterator[str]:
        array = schema["type"] == "array"
        item, key = f"{variable}_item", f"{variable}_key"
        yield f"if {variable}:"
        yield f"    n_{variable} = len({variable})"
        yield from source.indented(source.out([*before, source.size(variable)]))
        yield f"    for {item} in {variable}:" if array else f"    for {key}, {item} in {variable}.items():"
        parts = []
        if not array:
            line = source.sized(key, f"{key}.encode()")
            yield from source.indented(line.statements, 2)
            parts = line.parts
        yield from source.indented(self._write(schema["items" if array else "values"], item, parts), 2)
        yield r"    out.append(b'\0')"
        yield "else:"
        yield from source.indented(source.out([*before, r"b'\0'"]))

    def _leaf(self, definition: DictSchema, variable: str) -> source.Snippet:
        kind: str = definition["type"]
        convert = binary.logical_bytes(definition, truncates=self._truncates)
        if convert:
            call = f"{self._name(source.word(definition['logicalType']), convert)}({variable})"
            return source.sized(variable, call) if kind in {"string", "bytes"} else source.Snippet([], [call])
        if kind in _INTEGERS:
            small = len(binary.SMALL)
            table = f"SMALL[{variable}] if {variable} < {small}"
            tables = f"{table} else LOW[{variable} & {small - 1}] + HIGH[{variable} >> {small.bit_length() - 1}]"
            asked = "" if self._typed else f"type({variable}) is int and "
            quick = f"{asked}0 <= {variable} < {binary.IN_TABLES}"
            return source.Snippet([], [f"({tables}) if {quick} else {_INTEGERS[kind]}({variable})"])
        if kind in {"float", "double"}:
            quick = f"pack_{kind}({variable}) if type({variable}) is float and isfinite({variable})"
            return source.Snippet([], [f"{quick} else {'single' if kind == 'float' else kind}({variable})"])
        if kind == "boolean":
            return source.Snippet([], [rf"b'\1' if {variable} is True else b'\0' if {variable} is False else misfit()"])
        if kind == "null":
            return source.Snippet([f"if {variable} is not None: raise Misfit"], [])
        if kind == "enum":
            return self._enum(definition, variable)
        if kind == "string":
            return source.sized(variable, f"{variable}.encode()")
        avro_json = self._rules.bytes_as == "avro-json"
        data = f"{variable}.encode('latin-1')" if avro_json else f"base64_bytes({variable})"
        if kind == "bytes":
            return source.sized(variable, data)
        wrong = f"if len({variable}) != {definition['size']}: raise Misfit"
        return source.Snippet([f"{variable} = {data}", wrong], [variable])

    def _enum(self, schema: DictSchema, variable: str) -> source.Snippet:
        symbols = {symbol: binary.size(index) for index, symbol in enumerate(schema["symbols"])}
        table = self._name(source.word(schema["name"]), symbols)
        if schema.get("default") is None:
            return source.Snippet([], [f"{table}[{variable}]"])
        default = symbols[schema["default"]]
        return source.Snippet([], [f"{table}.get({variable}, {default!r}) if type({variable}) is str else misfit()"])

"""A schema as Python source: statements that append a value's bytes to `out`.

Where a schema is a straight line (`int`, `string`, ...) it becomes expressions that are gathered into one
`out += (...)`; arrays, maps, unions and records become statements. A record that is used in one place stands there, for
a call costs 0.1 us; one that is used in several, or within itself, is a function. The code checks every type and range
as it goes and raises on the first that is wrong, without a reason. What it calls by name is in `Emitter.names`.

A part's variable begins with that of the whole: within `v_lines_item` there is `v_lines_item_sku`.

Of a value that is `typed`, parsed by `cdc.avro.compiled.structs`, all is known but ranges, and what a text means.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from fastavro.types import DictSchema, Schema

from cdc.avro.compiled import binary, structs
from cdc.avro.compiled import source as lines
from cdc.avro.mapping import logical
from cdc.avro.mapping.branches import plain_integers, taking
from cdc.avro.mapping.convert import aliases, renamed, resolved, type_name
from cdc.avro.mapping.rules import Rules

Reference = Callable[[Schema], Callable[[object], bytes]]  # for a schema: the mapping and fastavro's writer

_ABSENT: Final = object()
_DEEPEST: Final = 5  # records that stand within each other: Python takes 20 blocks, and 100 levels of indentation
_INTEGERS: Final = {"int": "integer", "long": "long"}
_WITHIN: Final = {"int": "-0x80000000 <= {0} <= 0x7FFFFFFF", "long": "-1 << 63 <= {0} < 1 << 63"}


class Emitter:
    """Writes the functions of one schema; a record that is met for the first time is queued."""

    def __init__(
        self, schemas: dict[str, DictSchema], rules: Rules, reference: Reference, *, typed: bool = False
    ) -> None:
        absent = structs.ABSENT if typed else _ABSENT
        self.names: dict[str, object] = {**binary.NAMES, "ABSENT": absent, "renamed": renamed}
        self._typed = typed
        self._schemas = schemas
        self._rules = rules
        self._reference = reference
        self._functions: dict[str, str] = {}
        self._waiting: list[DictSchema] = []
        self._uses: Counter[str] = Counter()
        self._depth = 0

    def source(self, schema: Schema) -> tuple[list[str], str]:
        """The statements for a value `v`, and the functions that they call."""
        self._uses = lines.uses(schema)
        statements = list(self._write(schema, "v", []))
        functions: list[str] = []
        while self._waiting:
            record = self._waiting.pop(0)
            functions += ["", "", f"def {self._functions[record['name']]}(v, out):  # {lines.comment(record['name'])}"]
            functions += lines.indented(self._record(record, "v"))
        return statements, "\n".join([*functions, ""])

    def _record(self, record: DictSchema, value: str) -> Iterator[str]:
        fields, by_alias = record["fields"], {} if self._typed else aliases(record)
        counted = self._rules.unknown_fields == "reject" and not self._typed
        optional = any("default" in field for field in fields)
        if not fields:
            yield "pass" if self._typed else f"if type({value}) is not dict: raise Misfit"
        if by_alias:
            table = self._name("ALIASES", by_alias)
            yield f"if {' or '.join(f'{alias!r} in {value}' for alias in by_alias)}:"
            yield f"    {value} = renamed({value}, {table})"
        if optional and counted:
            yield f"absent_{value} = 0"
        pending: list[str] = []
        for number, field in enumerate(fields):
            variable = lines.variable(value, field)
            straight = None if "default" in field else self._line(field["type"], variable)
            if straight:
                yield f"{variable} = {self._part(value, number, field)}  # {self._kind(field['type'])}"
                yield from straight.statements
                pending += straight.parts
            else:
                yield from lines.out(pending)
                pending = []
                yield from self._field(number, field, value, counted)
        yield from lines.out(pending)
        if counted:
            yield f"if len({value}){f' + absent_{value}' if optional else ''} != {len(fields)}: raise Misfit"

    def _part(self, value: str, number: int, field: DictSchema) -> str:
        """The expression of a field's value."""
        if self._typed:
            return f"{value}.{structs.attribute(number)}"
        name = repr(field["name"])
        return f"{value}.get({name}, ABSENT)" if "default" in field else f"{value}[{name}]"

    def _field(self, number: int, field: DictSchema, value: str, counted: bool) -> Iterator[str]:
        """A field that has a default, or is no straight line."""
        variable = lines.variable(value, field)
        yield f"{variable} = {self._part(value, number, field)}  # {self._kind(field['type'])}"
        if "default" not in field:
            yield from self._write(field["type"], variable, [])
            return
        # What is absent is written as its default is, which was made once and for all.
        encode = self._reference({"type": "record", "name": "Default", "fields": [field]})
        yield f"if {variable} is ABSENT:"
        if counted:
            yield f"    absent_{value} += 1"
        yield f"    out.append({encode({})!r})  # default"
        yield "else:"
        yield from lines.indented(self._write(field["type"], variable, []))

    def _write(self, schema: Schema, variable: str, before: list[str]) -> Iterator[str]:
        """Statements that append the parts `before` and then the value of a variable."""
        straight = self._line(schema, variable)
        if straight:
            yield from straight.statements
            yield from lines.out(before + straight.parts) or ["pass"]
            return
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list):
            yield from lines.out(before)
            yield from self._union(definition, variable)
        elif definition["type"] in {"record", "error"}:
            yield from lines.out(before)
            if self._uses[definition["name"]] == 1 and self._depth < _DEEPEST:
                self._depth += 1
                yield from self._record(definition, variable)
                self._depth -= 1
            else:
                yield f"{self._function(definition)}({variable}, out)"
        else:
            yield from self._collection(definition, variable, before)

    def _collection(self, schema: DictSchema, variable: str, before: list[str]) -> Iterator[str]:
        array = schema["type"] == "array"
        item, key = f"{variable}_item", f"{variable}_key"
        if not self._typed:
            yield f"if type({variable}) is not {'list' if array else 'dict'}: raise Misfit"
        yield f"if {variable}:"
        yield f"    n_{variable} = len({variable})"
        yield from lines.indented(lines.out([*before, lines.size(variable)]))
        yield f"    for {item} in {variable}:" if array else f"    for {key}, {item} in {variable}.items():"
        parts = []
        if not array:
            line = lines.sized(key, f"{key}.encode()")
            yield from lines.indented(line.statements, 2)
            parts = line.parts
        yield from lines.indented(self._write(schema["items" if array else "values"], item, parts), 2)
        yield r"    out.append(b'\0')"
        yield "else:"
        yield from lines.indented(lines.out([*before, r"b'\0'"]))

    def _union(self, branches: list[Schema], variable: str) -> Iterator[str]:
        """By the type of the value; what more than one branch may take is left to the mapping."""
        tests = {
            f"{variable} is None": [f"out.append({binary.size(index)!r})"]
            for index in taking(branches, type(None), self._schemas)
        }
        others = [index for index in range(len(branches)) if type_name(branches[index]) != "null"]
        if len(others) == 1:
            last = list(self._branch(others[0], branches, variable))
        else:
            choose = f"out.append({self._name('union', self._reference(branches))}({variable}))"
            last = [f"{choose}  # more than one branch may take it, or none as it is"]
            for python_type in (str, int, float, bool, list, dict):
                found = taking(branches, python_type, self._schemas)
                test = f"type({variable}) is {python_type.__name__}"
                if len(found) == 1:
                    tests[test] = list(self._branch(found[0], branches, variable))
                elif python_type is int:
                    tests.update({
                        f"{test} and {_WITHIN[kind].format(variable)}": list(self._branch(index, branches, variable))
                        for kind, index in plain_integers(branches, found, self._schemas)
                    })  # fmt: skip
        for number, (test, statements) in enumerate(tests.items()):
            yield f"{'elif' if number else 'if'} {test}:"
            yield from lines.indented(statements)
        if tests:
            yield "else:"
        yield from lines.indented(last, 1 if tests else 0)

    def _branch(self, index: int, branches: list[Schema], variable: str) -> Iterator[str]:
        branch = branches[index]
        definition = resolved(branch, self._schemas)
        if definition["type"] in {"record", "error"} and self._rules.unknown_fields == "ignore":
            names = frozenset({*aliases(definition), *(field["name"] for field in definition["fields"])})
            if names:
                table = self._name("FIELDS", names)
                yield f"if {variable} and {table}.isdisjoint({variable}): raise Misfit"
        number = repr(binary.size(index))
        yield from self._write(branch, variable, [number])

    def _line(self, schema: Schema, variable: str) -> lines.Line | None:
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list) or definition["type"] in {"record", "error", "array", "map"}:
            return None
        kind: str = definition["type"]
        convert = binary.logical_bytes(definition)
        if convert:
            call = f"{self._name(lines.word(definition['logicalType']), convert)}({variable})"
            return lines.sized(variable, call) if kind in {"string", "bytes"} else lines.Line([], [call])
        if kind in _INTEGERS:
            small = len(binary.SMALL)
            table = f"SMALL[{variable}] if {variable} < {small}"
            tables = f"{table} else LOW[{variable} & {small - 1}] + HIGH[{variable} >> {small.bit_length() - 1}]"
            asked = "" if self._typed else f"type({variable}) is int and "
            quick = f"{asked}0 <= {variable} < {binary.IN_TABLES}"
            return lines.Line([], [f"({tables}) if {quick} else {_INTEGERS[kind]}({variable})"])
        if kind in {"float", "double"}:
            quick = f"pack_{kind}({variable}) if type({variable}) is float and isfinite({variable})"
            return lines.Line([], [f"{quick} else {'single' if kind == 'float' else kind}({variable})"])
        if kind == "boolean":
            return lines.Line([], [rf"b'\1' if {variable} is True else b'\0' if {variable} is False else misfit()"])
        if kind == "null":
            return lines.Line([f"if {variable} is not None: raise Misfit"], [])
        if kind == "enum":
            return self._enum(definition, variable)
        if kind == "string":
            return lines.sized(variable, f"{variable}.encode()")
        avro_json = self._rules.bytes_as == "avro-json"
        data = f"{variable}.encode('latin-1')" if avro_json else f"base64_bytes({variable})"
        if kind == "bytes":
            return lines.sized(variable, data)
        wrong = f"if len({variable}) != {definition['size']}: raise Misfit"
        return lines.Line([f"{variable} = {data}", wrong], [variable])

    def _enum(self, schema: DictSchema, variable: str) -> lines.Line:
        symbols = {symbol: binary.size(index) for index, symbol in enumerate(schema["symbols"])}
        table = self._name(lines.word(schema["name"]), symbols)
        if schema.get("default") is None:
            return lines.Line([], [f"{table}[{variable}]"])
        default = symbols[schema["default"]]
        return lines.Line([], [f"{table}.get({variable}, {default!r}) if type({variable}) is str else misfit()"])

    def _function(self, record: DictSchema) -> str:
        """The name of the function of a record; a new one waits to be written."""
        name: str = record["name"]
        if name not in self._functions:
            self._functions[name] = self._free(f"record_{lines.word(name)}")
            self._waiting.append(record)
        return self._functions[name]

    def _name(self, name: str, value: object) -> str:
        """A global of the source that stands for a value."""
        name = self._free(f"{name}_{len(self.names)}")
        self.names[name] = value
        return name

    def _free(self, name: str) -> str:
        while name in self.names or name in self._functions.values():
            name += "_"
        return name

    def _kind(self, schema: Schema) -> str:
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list):
            return " or ".join(lines.comment(type_name(branch)) for branch in definition)
        logical_type = definition["logicalType"] if logical.mapper(definition) else None
        return lines.comment(type_name(schema)) + (f" ({lines.comment(logical_type)})" if logical_type else "")

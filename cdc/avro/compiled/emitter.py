"""Generate Python source from a schema: statements that append a value's Avro encoding to `out`.

Types without branches (`int`, `string`, ...) become expressions that are gathered into one `out += (...)`; arrays,
maps, unions and records become statements. A record that is used once is inlined, since calls are slow; one that is
used several times, or within itself, becomes a function. The code checks every type and range as it goes, and raises on
the first mismatch, without a reason. `Emitter.names` contains the globals that it uses.

A part's variable starts with that of the whole: `v_lines_item` has the part `v_lines_item_sku`.

Types of a `typed` value, parsed by `cdc.avro.compiled.structs`, are already checked, but not ranges and formats.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from fastavro.types import DictSchema, Schema

from cdc.avro.compiled import binary, source, structs
from cdc.avro.mapping import logical
from cdc.avro.mapping.branches import plain_integers, taking, truncates
from cdc.avro.mapping.convert import aliases, renamed, resolved, type_name
from cdc.avro.mapping.rules import Rules

Reference = Callable[[Schema], Callable[[object], bytes]]  # from a schema to the mapping plus fastavro's writer

_ABSENT: Final = object()
_DEEPEST: Final = 5  # nested inlined records: Python allows 20 nested blocks and 100 levels of indentation
_INTEGERS: Final = {"int": "integer", "long": "long"}
_WITHIN: Final = {"int": "-0x80000000 <= {0} <= 0x7FFFFFFF", "long": "-1 << 63 <= {0} < 1 << 63"}


class Emitter:
    """Generates the source for one schema. A record that needs a function is queued when it is first used."""

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
        self._truncates = False

    def generate(self, schema: Schema) -> tuple[list[str], str]:
        """Return the statements that encode a value `v`, and the functions that they call."""
        self._uses = source.uses(schema)
        self._truncates = truncates(schema, self._rules)
        statements = list(self._write(schema, "v", []))
        functions: list[str] = []
        while self._waiting:
            record = self._waiting.pop(0)
            functions += ["", "", f"def {self._functions[record['name']]}(v, out):  # {source.comment(record['name'])}"]
            functions += source.indented(self._record(record, "v"))
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
            variable = source.variable(value, field)
            simple = None if "default" in field else self._line(field["type"], variable)
            if simple:
                yield f"{variable} = {self._part(value, number, field)}  # {self._kind(field['type'])}"
                yield from simple.statements
                pending += simple.parts
            else:
                yield from source.out(pending)
                pending = []
                yield from self._field(number, field, value, counted)
        yield from source.out(pending)
        if counted:
            yield f"if len({value}){f' + absent_{value}' if optional else ''} != {len(fields)}: raise Misfit"

    def _part(self, value: str, number: int, field: DictSchema) -> str:
        """Return the expression that reads a field's value."""
        if self._typed:
            return f"{value}.{structs.attribute(number)}"
        name = repr(field["name"])
        return f"{value}.get({name}, ABSENT)" if "default" in field else f"{value}[{name}]"

    def _field(self, number: int, field: DictSchema, value: str, counted: bool) -> Iterator[str]:
        """Yield statements for a field that has a default, or a type with branches."""
        variable = source.variable(value, field)
        yield f"{variable} = {self._part(value, number, field)}  # {self._kind(field['type'])}"
        if "default" not in field:
            yield from self._write(field["type"], variable, [])
            return
        # The default is encoded once, when the source is generated.
        encode = self._reference({"type": "record", "name": "Default", "fields": [field]})
        yield f"if {variable} is ABSENT:"
        if counted:
            yield f"    absent_{value} += 1"
        yield f"    out.append({encode({})!r})  # default"
        yield "else:"
        yield from source.indented(self._write(field["type"], variable, []))

    def _write(self, schema: Schema, variable: str, before: list[str]) -> Iterator[str]:
        """Yield statements that append the parts `before`, and then the value of a variable."""
        simple = self._line(schema, variable)
        if simple:
            yield from simple.statements
            yield from source.out(before + simple.parts) or ["pass"]
            return
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list):
            yield from source.out(before)
            yield from self._union(definition, variable)
        elif definition["type"] in {"record", "error"}:
            yield from source.out(before)
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

    def _union(self, branches: list[Schema], variable: str) -> Iterator[str]:
        """Yield a test per Python type of the value; values with several candidate branches are left to the mapping."""
        tests = {
            f"{variable} is None": [f"out.append({binary.size(index)!r})"]
            for index in taking(branches, type(None), self._schemas)
        }
        others = [index for index in range(len(branches)) if type_name(branches[index]) != "null"]
        if len(others) == 1:
            last = list(self._branch(others[0], branches, variable))
        else:
            choose = f"out.append({self._name('union', self._reference(branches))}({variable}))"
            last = [f"{choose}  # several branches may match it, or none"]
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
            yield from source.indented(statements)
        if tests:
            yield "else:"
        yield from source.indented(last, 1 if tests else 0)

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

    def _line(self, schema: Schema, variable: str) -> source.Snippet | None:
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list) or definition["type"] in {"record", "error", "array", "map"}:
            return None
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

    def _function(self, record: DictSchema) -> str:
        """Return the name of a record's function, and queue the record unless its function exists."""
        name: str = record["name"]
        if name not in self._functions:
            self._functions[name] = self._free(f"record_{source.word(name)}")
            self._waiting.append(record)
        return self._functions[name]

    def _name(self, name: str, value: object) -> str:
        """Add a value to the source's globals, and return its unique name."""
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
            return " or ".join(source.comment(type_name(branch)) for branch in definition)
        logical_type = definition["logicalType"] if logical.mapper(definition) else None
        return source.comment(type_name(schema)) + (f" ({source.comment(logical_type)})" if logical_type else "")

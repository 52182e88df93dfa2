"""Generate Python source from a schema: statements that append a value's encoding to `out`.

The walk over the schema and its checks are the same for both encodings, Avro (`avro_emitter`) and JSON
(`json_emitter`), so that they accept the same values.

Types without branches (`int`, `string`, ...) become expressions that are gathered into one `out += (...)`; arrays,
maps, unions and records become statements. A record that is used once is inlined, since calls are slow; one that is
used several times, or within itself, becomes a function. The code checks every type and range as it goes, and raises on
the first mismatch, without a reason. `Emitter.names` contains the globals that it uses.

A part's variable starts with that of the whole: `v_lines_item` has the part `v_lines_item_sku`.

Types of a `typed` value, parsed by `cdc.avro.compiled.structs`, are already checked, but not ranges and formats.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

from fastavro.types import DictSchema, Schema

from cdc.avro.compiled import source, structs
from cdc.avro.mapping import logical
from cdc.avro.mapping.branches import plain_integers, taking, truncates
from cdc.avro.mapping.convert import aliases, renamed, resolved, type_name
from cdc.avro.mapping.rules import Rules

Reference = Callable[[Schema], Callable[[object], Any]]  # from a schema to the mapping plus the encoding's writer

_ABSENT: Final = object()
_DEEPEST: Final = 5  # nested inlined records: Python allows 20 nested blocks and 100 levels of indentation
WITHIN: Final = {"int": "-0x80000000 <= {0} <= 0x7FFFFFFF", "long": "-1 << 63 <= {0} < 1 << 63"}


class Emitter(ABC):
    """Generates the source for one schema. A record that needs a function is queued when it is first used.

    `rules` say how values are read, `reference` encodes a value of a schema that may be a part of the whole.
    """

    globals: ClassVar[Mapping[str, object]]
    """The names that the source of an encoding uses."""

    def __init__(
        self, schemas: dict[str, DictSchema], rules: Rules, reference: Reference, *, typed: bool = False
    ) -> None:
        absent = structs.ABSENT if typed else _ABSENT
        self.names: dict[str, object] = {**self.globals, "ABSENT": absent, "renamed": renamed}
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
            pending += self._label(field, number)
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
        yield from source.out(pending + self._closing(record))
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
        yield f"if {variable} is ABSENT:"
        if counted:
            yield f"    absent_{value} += 1"
        yield f"    out.append({self._default(field)!r})  # default"  # encoded once, when the source is generated
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
            if not self._typed:
                array = definition["type"] == "array"
                yield f"if type({variable}) is not {'list' if array else 'dict'}: raise Misfit"
            yield from self._collection(definition, variable, before)

    @abstractmethod
    def _leaf(self, definition: DictSchema, variable: str) -> source.Snippet:
        """Return the code for a value of a type without branches."""

    @abstractmethod
    def _collection(self, schema: DictSchema, variable: str, before: list[str]) -> Iterator[str]:
        """Yield statements for an array or a map, whose type is checked."""

    @abstractmethod
    def _index(self, index: int) -> list[str]:
        """Return the expressions before the value of a union's branch."""

    @abstractmethod
    def _null(self, index: int) -> list[str]:
        """Return the expressions for a null that is the branch `index` of a union."""

    @abstractmethod
    def _label(self, field: DictSchema, number: int) -> list[str]:
        """Return the expressions before the value of a record's field."""

    @abstractmethod
    def _closing(self, record: DictSchema) -> list[str]:
        """Return the expressions after the values of a record's fields."""

    def _default(self, field: DictSchema) -> Any:
        """Return a field's default as it is encoded."""
        return self._reference({"type": "record", "name": "Default", "fields": [field]})({})

    def _line(self, schema: Schema, variable: str) -> source.Snippet | None:
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list) or definition["type"] in {"record", "error", "array", "map"}:
            return None
        return self._leaf(definition, variable)

    def _union(self, branches: list[Schema], variable: str) -> Iterator[str]:
        """Yield a test per Python type of the value; values with several candidate branches are left to the mapping."""
        tests = {
            f"{variable} is None": source.out(self._null(index))
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
                        f"{test} and {WITHIN[kind].format(variable)}": list(self._branch(index, branches, variable))
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
        yield from self._write(branch, variable, self._index(index))

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

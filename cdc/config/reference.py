"""The reference of all settings as Markdown, from nothing but their own definitions."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cdc.config.librdkafka import OURS, PROMISES
from cdc.config.settings import Settings

_HEAD: Final = """\
# Configuration

Written by `cdc-publisher config reference`, which tells of the version that is installed.

Options (`--set SECTION.NAME=VALUE`) override the environment (`CDC_SECTION__NAME`), which overrides the file
(`--config`, else `./cdc-publisher.toml`), which overrides the defaults. Unknown names are errors, and so are values of
the wrong type; all problems are told at once, with exit code 78. `cdc-publisher config show` prints what is in effect,
secrets masked; `cdc-publisher config validate` checks settings and contracts without connecting to anything.

* **Environment:** the section, two underscores, the name, all in capitals: `CDC_POSTGRES__SLOT`. What is empty counts
  as not set. Lists are JSON or separated by commas, tables are JSON.
* **Secrets in files:** with `_FILE` behind its name a variable names a file that holds the value, such as
  `CDC_POSTGRES__DSN_FILE`. A line's end behind the value does not count. Both at once are an error.
* **Paths** in a settings file are relative to that file, elsewhere to the working folder.

```toml
[postgres]
dsn = "postgresql://cdc@db.example.com/shop"

[kafka]
"bootstrap.servers" = "kafka-1.example.com:9092,kafka-2.example.com:9092"

[avro]
schemas = "schemas"
```
"""

_KAFKA: Final = """\
## [kafka]

Any [property of librdkafka](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md), as it is called
there; names with dots are quoted in TOML. `"bootstrap.servers"` is required. In the environment dots are underscores:
`CDC_KAFKA__BOOTSTRAP_SERVERS`, `CDC_KAFKA__SASL_PASSWORD_FILE`. What librdkafka does not take is an error.

What differs from librdkafka's defaults:
"""
_REFUSED: Final = """
What would break the promise is refused:
"""
_WORDS: Final = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", Path: "path"}


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for part in _sections() for line in part)])


def names() -> list[str]:
    """Every setting as `--set` has it; of librdkafka's properties those that have a default of ours."""
    tables = ((section, field.annotation) for section, field in Settings.model_fields.items())
    ours = [f"{section}.{name}" for section, table in tables if _is_table(table) for name, _ in _fields(table)]
    return [*ours, "kafka.bootstrap.servers", *(f"kafka.{name}" for name in OURS)]


def _fields(table: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Each setting of a table, and of the tables in it, by its name from there."""
    for name, field in table.model_fields.items():
        if _is_table(field.annotation):
            yield from _fields(field.annotation, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


def _sections() -> Iterator[list[str]]:
    for section, field in Settings.model_fields.items():
        if _is_table(field.annotation):
            yield [
                f"## [{section}]",
                "",
                *_described(field.annotation),
                *_table(_ROW, _rows(section, field.annotation)),
                "",
            ]
        else:
            yield [_KAFKA, *_ours(), _REFUSED, *_refused(), ""]


_ROW: Final = ("setting", "environment", "value", "default", "meaning")


def _rows(section: str, table: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in _fields(table):
        variable = f"CDC_{section}__{name.replace('.', '__')}".upper()
        yield (f"`{name}`", f"`{variable}`", _kind(field), _default(field), field.description or "")


def _described(table: type[BaseModel]) -> list[str]:
    return [*(table.__doc__ or "").splitlines(), ""]


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


def _kind(field: FieldInfo) -> str:
    kind = _word(field.annotation)
    bounds = [
        f"{sign} {getattr(rule, name):,}" for rule in field.metadata for name, sign in _BOUNDS if hasattr(rule, name)
    ]
    return f"{kind}, {' and '.join(bounds)}" if bounds else kind


_BOUNDS: Final = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


def _word(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return _word(next(one for one in arguments if one is not type(None)))
    if origin is list:
        return "list"
    if origin is dict:
        return "table"
    return _WORDS[annotation] if annotation in _WORDS else _word(arguments[0])


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == "":
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _is_table(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _ours() -> list[str]:
    return _table(
        ("property", "default", "why"), ((f"`{name}`", f"`{_text(value)}`", why) for name, (value, why) in OURS.items())
    )


def _refused() -> list[str]:
    rows = ((f"`{name}`", _allowed(values), why) for name, (values, why) in PROMISES.items())
    return _table(("property", "taken", "because otherwise"), rows)


def _allowed(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values) or "no value"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

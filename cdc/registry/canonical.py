"""Compares the texts of schemas by meaning: a registry returns them re-ordered, re-spaced, or spelt differently.

Parsing canonical form (<https://avro.apache.org/docs/1.12.0/specification/#parsing-canonical-form-for-schemas>), and
what it strips although it changes what a reader makes of the bytes: logical types and defaults. Names that the text
only refers to stay names, so a schema whose parts are other subjects needs none of them here.
"""

import json
from typing import Any, Final

_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_DECIMAL: Final = ("precision", "scale")


def same_schema(a: str, b: str) -> bool:
    """Return whether both texts are the same schema. False when either is no schema."""
    try:
        return canonical(a) == canonical(b)
    except ValueError:
        return False


def canonical(text: str) -> str:
    """Return the form that all spellings of a schema share. Raises ValueError when the text is no schema."""
    try:
        form = _form(_parse(text), "")
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not an Avro schema: {type(error).__name__} {error}") from None
    return json.dumps(form, sort_keys=True)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        # The specification allows a bare name; some registries drop the quotes of a primitive.
        if text.strip() in _PRIMITIVES:
            return text.strip()
        raise


def _form(schema: Any, namespace: str) -> object:
    if isinstance(schema, str):
        return _referred(schema, namespace)
    if isinstance(schema, list):
        return [_form(branch, namespace) for branch in schema]
    kind = schema["type"]
    if isinstance(kind, (dict, list)):
        return _with_meaning(_form(kind, namespace), schema)
    if kind in ("record", "error", "enum", "fixed"):
        return _with_meaning(_named(schema, kind, namespace), schema)
    if kind == "array":
        return _with_meaning({"type": "array", "items": _form(schema["items"], namespace)}, schema)
    if kind == "map":
        return _with_meaning({"type": "map", "values": _form(schema["values"], namespace)}, schema)
    return _with_meaning(_referred(kind, namespace), schema)


def _named(schema: dict[str, Any], kind: str, namespace: str) -> dict[str, object]:
    name = _full_name(schema, namespace)
    form: dict[str, object] = {"type": kind, "name": name}
    within = name.rpartition(".")[0]
    if kind == "enum":
        form["symbols"] = list(schema["symbols"])
        if "default" in schema:
            form["default"] = schema["default"]
    elif kind == "fixed":
        form["size"] = int(schema["size"])
    else:
        form["type"] = "record"
        form["fields"] = [_field(field, within) for field in schema["fields"]]
    return form


def _field(field: dict[str, Any], namespace: str) -> dict[str, object]:
    form = {"name": field["name"], "type": _form(field["type"], namespace)}
    if "default" in field:
        form["default"] = _value(field["default"])
    return form


def _full_name(schema: dict[str, Any], namespace: str) -> str:
    name: str = schema["name"]
    if "." in name:
        return name.lstrip(".")
    within = schema.get("namespace")
    within = namespace if within is None else within
    return f"{within}.{name}" if within else name


def _referred(name: str, namespace: str) -> str:
    if name in _PRIMITIVES:
        return name
    return _full_name({"name": name}, namespace)


def _with_meaning(form: object, schema: dict[str, Any]) -> object:
    """Return the form, marked with its logical type where it has one."""
    logical = schema.get("logicalType")
    if logical is None:
        return form
    marked = dict(form) if isinstance(form, dict) else {"type": form}
    marked["logicalType"] = logical
    if logical == "decimal":
        marked.update({name: int(schema.get(name, 0)) for name in _DECIMAL})
    return marked


def _value(value: object) -> object:
    """Normalize a default: a registry may print the same number as 1 or 1.0; neither equals true."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _value(item) for name, item in value.items()}
    return value

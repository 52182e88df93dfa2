"""Write settings as a settings file."""

import json
from collections.abc import Mapping


def section_text(section: str, table: Mapping[str, object]) -> str:
    """Return one section; a setting without a value becomes a comment, because TOML has no null."""
    lines = [f"[{section}]"]
    for name, value in table.items():
        key = json.dumps(name) if "." in name else name
        lines.append(f"# {key} is not set" if value is None else f"{key} = {value_text(value)}")
    return "\n".join(lines)


def value_text(value: object) -> str:
    """Return a value in TOML."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{json.dumps(name)} = {value_text(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    # JSON strings, numbers and booleans are valid TOML, except that TOML requires DEL to be escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

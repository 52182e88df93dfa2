"""Forms of record keys: the key column's text, or what Kafka Connect's JsonConverter makes of its value.

The partition follows from the bytes of the key. So JSON is written byte for byte as the converter's library, Jackson,
does: control characters as `\\u001F` in upper case, characters above U+FFFF as two escapes, all else as it is.
"""

import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from cdc.replication.values import BOOL, BPCHAR, INT2, INT4, INT8, TEXT, UUID, VARCHAR, to_text, to_utf8

Form = Literal["text", "json", "json-schema"]

_SCHEMAS: Final = {
    BOOL: '"boolean"',
    INT2: '"int16"',
    INT4: '"int32"',
    INT8: '"int64"',
    **dict.fromkeys((TEXT, VARCHAR, BPCHAR, UUID), '"string"'),
}
"""Kafka Connect's type of each column type that a JSON key may have."""

_BARE: Final = frozenset({BOOL, INT2, INT4, INT8})
_NAMES: Final = {UUID: ',"name":"io.debezium.data.Uuid","version":1'}

_ESCAPED: Final = re.compile('[\x00-\x1f"\\\\\U00010000-\U0010ffff]')
_SHORT: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class Frame(NamedTuple):
    """How the text of a key column becomes a key: what stands before and after it, and whether it is a JSON string."""

    before: bytes = b""
    after: bytes = b""
    is_string: bool = False

    def key(self, text: str) -> bytes:
        """Return the key."""
        return self.before + (escaped(text) if self.is_string else text).encode() + self.after


class Keys(NamedTuple):
    """The form of keys; `optional` is what the schema within a key says, with `json-schema`."""

    form: Form = "text"
    optional: bool = False

    def frame(self, type_oid: int) -> Frame | None:
        """Return how keys of a column of this type are made; None if the form has no key of such a type."""
        if self.form == "text":
            return Frame()
        schema = _SCHEMAS.get(type_oid)
        if schema is None:
            return None
        before, after, quote = b"", b"", b"" if type_oid in _BARE else b'"'
        if self.form == "json-schema":
            optional, name = str(self.optional).lower(), _NAMES.get(type_oid, "")
            before = f'{{"schema":{{"type":{schema},"optional":{optional}{name}}},"payload":'.encode()
            after = b"}"
        return Frame(before + quote, quote + after, bool(quote))

    def reader(self, type_oid: int, binary: bool) -> Callable[[bytes], bytes] | None:
        """Return the decoder of a cell to a key, or None as `frame` and `to_text` do."""
        if self.form == "text":
            return to_utf8(type_oid, binary)
        frame, text = self.frame(type_oid), to_text(type_oid, binary)
        return frame and text and (lambda cell: frame.key(text(cell)))

    def refusal(self, column: str, type_name: str) -> str:
        """Return why a column of a type without such a key cannot be the key."""
        return (
            f'column {column!r} is {type_name}, of which [record] key = "{self.form}" makes no key: it takes smallint,'
            " integer, bigint, boolean, uuid, text, varchar and char"
        )


TEXT_KEYS: Final = Keys()


def escaped(text: str) -> str:
    """Return text as it stands between the quotes of a JSON string by Jackson."""
    return _ESCAPED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code < 0x20:
        return f"\\u{code:04X}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04X}\\u{0xDC00 | code & 0x3FF:04X}"

"""Format log records as lines of text or JSON.

Log lines quote untrusted text: payloads, topic names, errors of servers. It is escaped, so that it cannot end a line or
control a terminal; it is limited in length; and secrets in it are masked.
"""

import logging
import re
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Final

import orjson

LONGEST: Final = 8192
"""Most characters of a message or field, whose middle is omitted beyond; Docker splits lines at 16 KiB."""
LONGEST_TRACEBACK: Final = 32_768

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Control characters: C0 and C1, line separators of Unicode, and marks that change the direction of text.
_C0: Final = r"\x00-\x1f"
_UNSEEN: Final = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_QUOTED: Final = re.compile(rf"[\s\"\\{_C0}{_UNSEEN}]")
_UNSAFE: Final = re.compile(rf"[{_C0}{_UNSEEN}]")
_UNSAFE_BUT_BREAKS: Final = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_UNSAFE_IN_JSON: Final = re.compile(rf"[{_UNSEEN}]")  # what JSON does not require to be escaped
_ESCAPES: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

_scrub: Callable[[str], str] = str


def hide(scrub: Callable[[str], str]) -> None:
    """Mask secrets with `scrub` in all text from now on."""
    global _scrub
    _scrub = scrub


def hidden(text: str, longest: int = LONGEST) -> str:
    """Return text with secrets masked and lone surrogates escaped, shortened to about `longest` characters."""
    text = _scrub(text).encode(errors="backslashreplace").decode()
    omitted = len(text) - longest
    if omitted <= 0:
        return text
    return f"{text[: longest // 2]}… ({omitted} characters omitted) …{text[-(longest // 2) :]}"


def shown(text: str) -> str:
    """Return text of any length and several lines with secrets masked and control characters escaped."""
    return _UNSAFE_BUT_BREAKS.sub(_escape, hidden(text, len(text) + LONGEST))


def _escape(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}"


class Bare(logging.Formatter):
    """Formats the message only, for commands that do not configure logging."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


class Text(logging.Formatter):
    """Formats a record as `time level message name=value …`, optionally with a coloured level and the field `unit`."""

    def __init__(self, *, colour: bool = False, unit: str = "") -> None:
        super().__init__()
        self._colour = colour
        self._context = {"unit": unit} if unit else {}

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_plain(value)}" for name, value in {**self._context, **_fields(record)}.items())
        message = _UNSAFE.sub(_escape, hidden(record.getMessage()))
        return f"{_time(record)} {self._level(record)} {message}{fields}{self._trace(record)}"

    def _level(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        if not self._colour:
            return f"{level:7}"
        return f"\x1b[{_COLOURS.get(level, '0')}m{level:7}\x1b[0m"

    def _trace(self, record: logging.LogRecord) -> str:
        if not record.exc_info:
            return ""
        text = _UNSAFE_BUT_BREAKS.sub(_escape, hidden(self.formatException(record.exc_info), LONGEST_TRACEBACK))
        # Indented, so that no line of an error's text looks like a log line.
        return "\n" + textwrap.indent(text, "  ", lambda _: True)


class Json(logging.Formatter):
    """Formats a record as a JSON object: time, level, logger, message, `context`, the record's fields, traceback."""

    def __init__(self, context: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._context = dict(context or {})

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": hidden(record.getMessage()),
        }
        fields = {**self._context, **_fields(record)}
        line |= {name: _safe(value) for name, value in fields.items() if name not in line}
        if record.exc_info:
            line["traceback"] = hidden(self.formatException(record.exc_info), LONGEST_TRACEBACK)
        return _UNSAFE_IN_JSON.sub(_escape, orjson.dumps(line).decode())


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _plain(value: object) -> str:
    text = "-" if value is None else hidden(str(value))
    # Quoted as JSON unless it is a single word, so that fields can be parsed.
    return _UNSAFE_IN_JSON.sub(_escape, orjson.dumps(text).decode()) if _QUOTED.search(text) else text


def _safe(value: object) -> object:
    if isinstance(value, str):
        return hidden(value)
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)  # the range of orjson
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # cyclic, too deep, or a surrogate
        return hidden(str(value))
    return orjson.Fragment(text) if hidden(text) == text else hidden(text)


def plain(text: str) -> str:
    """Escape unprintable characters, so that untrusted text is safe on a terminal and stays on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

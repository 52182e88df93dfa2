"""Log records to lines: text for people, JSON for machines.

Much of what is logged was written by strangers: payloads, names of topics, errors of servers. None of it ends a line,
begins another, moves a terminal's cursor, or makes a line of any length; and none holds a secret.
"""

import logging
import re
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Final

import orjson

LONGEST: Final = 8192
"""Characters of a message or field; a line of Docker's holds 16 KiB. Of a longer one the middle is left out."""
LONGEST_TRACEBACK: Final = 32_768

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# What a terminal obeys instead of showing it: C0 and C1, line ends of Unicode, marks that turn the direction of text.
_C0: Final = r"\x00-\x1f"
_UNSEEN: Final = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_QUOTED: Final = re.compile(rf"[\s\"\\{_C0}{_UNSEEN}]")
_UNSAFE: Final = re.compile(rf"[{_C0}{_UNSEEN}]")
_UNSAFE_BUT_BREAKS: Final = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_UNSAFE_IN_JSON: Final = re.compile(rf"[{_UNSEEN}]")  # what JSON does not escape by itself
_ESCAPES: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

_scrub: Callable[[str], str] = str


def hide(scrub: Callable[[str], str]) -> None:
    """From now on `scrub` takes the secrets out of every text."""
    global _scrub
    _scrub = scrub


def hidden(text: str, longest: int = LONGEST) -> str:
    """Without secrets, in characters that UTF-8 has, and not longer than that by much."""
    text = _scrub(text).encode(errors="backslashreplace").decode()
    left_out = len(text) - longest
    if left_out <= 0:
        return text
    return f"{text[: longest // 2]}… ({left_out} characters left out) …{text[-(longest // 2) :]}"


def shown(text: str) -> str:
    """A text of several lines for people, without secrets and without what a terminal obeys; of any length."""
    return _UNSAFE_BUT_BREAKS.sub(_escape, hidden(text, len(text) + LONGEST))


def _escape(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}"


class Bare(logging.Formatter):
    """The message, for commands that do not configure logs."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


class Text(logging.Formatter):
    """`time level message name=value …`; the level in colour when that is asked for."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
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
        # Indented: no line of an error's text passes for a line of the log.
        return "\n" + textwrap.indent(text, "  ", lambda _: True)


class Json(logging.Formatter):
    """One object a line: time, level, logger, message, the fields of every line, those of this one, traceback."""

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
    # Quoted as JSON where it would not read as one word: a line stays a line.
    return _UNSAFE_IN_JSON.sub(_escape, orjson.dumps(text).decode()) if _QUOTED.search(text) else text


def _safe(value: object) -> object:
    if isinstance(value, str):
        return hidden(value)
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)  # what orjson takes
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # cyclic, too deep, or a surrogate
        return hidden(str(value))
    return orjson.Fragment(text) if hidden(text) == text else hidden(text)


def plain(text: str) -> str:
    """Text of a row, harmless for a terminal and on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

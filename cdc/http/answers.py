"""HTTP answers, and the headers that all of them have."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import orjson

CLOSED: Final = "default-src 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of answers other than the page."""
HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", CLOSED),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


class Answer(NamedTuple):
    """One answer; `own_headers` replace those of HEADERS with the same names."""

    status: HTTPStatus
    content_type: str
    body: bytes
    own_headers: Mapping[str, str] = {}

    @property
    def headers(self) -> dict[str, str]:
        """All headers, except those that concern the connection."""
        about = {"Content-Type": self.content_type, "Content-Length": str(len(self.body))}
        return {**dict(HEADERS), **about, **self.own_headers}


def json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """Make a JSON answer, indented for readability."""
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Answer(status, "application/json", body)


def text(lines: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Answer:
    """Make a plain text answer."""
    body = f"{lines}\n".encode(errors="backslashreplace")
    return Answer(status, "text/plain; charset=utf-8", body, headers)

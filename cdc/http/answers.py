"""What an answer is made of, and the headers that every one of them has."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import orjson

CLOSED: Final = "default-src 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of what is no page."""
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


def json(told: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """For machines; indented, because people look at it too."""
    body = orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Answer(status, "application/json", body)


def text(told: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Answer:
    """A line or more for people."""
    body = f"{told}\n".encode(errors="backslashreplace")
    return Answer(status, "text/plain; charset=utf-8", body, headers)

"""The status page: one self-contained document, whose policy allows its own style and script by their hashes."""

import base64
import hashlib
from http import HTTPStatus
from importlib import resources
from typing import Final

from cdc.http.answers import Answer

_POLICY: Final = (
    "default-src 'none'",
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",  # assigning text as markup throws
)


class Page:
    """The page of a publisher or of a `fleet`, assembled once."""

    def __init__(self, name: str = "page") -> None:
        style, script = _asset("page.css"), _asset(f"{name}.js")
        text = _asset(f"{name}.html").replace("{style}", style).replace("{script}", script)
        policy = [*_POLICY, f"style-src '{_hash(style)}'", f"script-src '{_hash(script)}'"]
        self.answer = Answer(
            HTTPStatus.OK,
            "text/html; charset=utf-8",
            text.encode(),
            {"Content-Security-Policy": "; ".join(policy)},
        )


def _asset(name: str) -> str:
    return (resources.files("cdc.http") / "assets" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

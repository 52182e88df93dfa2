"""Requests the status of a running publisher over HTTP, with limits: any program may listen at its address."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from cdc.config.hostport import ALL, listen_address
from cdc.status import fleet
from cdc.status.document import StatusDocument, parse
from cdc.status.fleet import FleetDocument

T = TypeVar("T")

SECONDS: Final = 2.0
"""Longest time of an answer, from connecting to its last byte."""

_LARGEST: Final = 8 * 1024 * 1024
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", **dict.fromkeys(ALL, "127.0.0.1")}


class NoAnswer(Exception):
    """No publisher answered in time; the text is a phrase for operators."""


def url_of(listen: str) -> str:
    """Return the URL of a publisher on this machine that listens at `listen`. Raises NoAnswer for port 0."""
    host, port = listen_address(listen)
    if port == 0:
        raise NoAnswer(f"[http] listen is {listen!r}: the system chooses the port")
    host = _LOOPBACK.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def checked(url: str) -> str:
    """Return the base URL of an endpoint. Raises ValueError, with a phrase, when it is not valid."""
    parts = urlsplit(url)  # raises ValueError by itself for a bad host
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not http://host:port or https://host:port")
    if "@" in parts.netloc:
        raise ValueError("the URL holds a user or a password; the endpoint asks for none")
    if parts.query or parts.fragment:
        raise ValueError("the URL has a query or a fragment; the address alone is enough")
    if parts.port == 0:
        raise ValueError("port 0 is no port that answers")
    return url.rstrip("/").removesuffix("/status")


def ask(url: str, seconds: float = SECONDS) -> StatusDocument:
    """Return the status document of the publisher at `url`. Raises NoAnswer within about `seconds`."""
    return _asked(url, seconds, lambda body: parse(body, url))


def ask_fleet(url: str, seconds: float = SECONDS) -> FleetDocument:
    """Return the status document of the instance of a fleet at `url`. Raises NoAnswer likewise, which names the URL."""
    try:
        return _asked(url, seconds, fleet.parse)
    except NoAnswer as silence:
        raise NoAnswer(f"{url}: {silence}") from None


def _asked(url: str, seconds: float, read: Callable[[bytes], T]) -> T:
    late = threading.Event()
    try:
        return read(_answer(url, seconds, late))
    except (NoAnswer, OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"no answer within {seconds:g} s" if late.is_set() else _phrase(error, seconds)) from None


def _phrase(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, http.client.HTTPException | ConnectionError) and not error.args[1:]:
        return f"the answer is not HTTP ({type(error).__name__})"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error)


def _answer(url: str, seconds: float, late: threading.Event) -> bytes:
    """Return the body of a successful answer. Redirects are not followed: they would lead to another program."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=seconds)) as connection:
        connection.connect()
        # A socket's own timeout starts again with each byte.
        timer = threading.Timer(seconds, _hang_up, (connection.sock, late))
        timer.start()
        try:
            headers = {"Accept": "application/json", "Connection": "close"}
            connection.request("GET", f"{parts.path}/status", headers=headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise NoAnswer(f"the answer is HTTP status {answer.status}")
            body = answer.read(_LARGEST + 1)
        finally:
            timer.cancel()
        if len(body) > _LARGEST:
            raise NoAnswer(f"the answer is larger than {_LARGEST // 1024 // 1024} MB")
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        return body


def _hang_up(connection: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # also beneath TLS, whose own shutdown would wait

"""Waitress, made stricter: one request for each connection, little time for it, and always room for one more.

What the library leaves open does not matter to a web site behind a proxy, but to a probe that must be answered
whoever else is there: connections that send one byte now and then live for ever, and when there are too many of
them nobody else gets in. And what follows a first request in a connection is nothing that we need: no keeping alive,
so no pipelining, and nothing to smuggle a second request into.
"""

import logging
from collections.abc import Iterable
from typing import Final

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask

log = logging.getLogger(__name__)

CONNECTIONS: Final = 64
"""At the same time, for each address. One more, and the oldest of them has to go."""
CONNECTION_SECONDS: Final = 10.0
"""From the first byte to the last: a probe has a timeout of a second."""

Headers = Iterable[tuple[str, str]]


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        self.headers["CONNECTION"] = "close"
        self.connection_close = True


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """What the library itself refuses gets the headers of our own answers."""

    def build_response_header(self) -> bytes:
        self.response_headers.extend(self.channel.server.headers)
        header: bytes = super().build_response_header()
        return header


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection."""

    parser_class = _Parser
    error_task_class = _ErrorTask

    def handle_error(self) -> None:
        """The library's parser raises ValueError for some malformed requests: no traceback for them."""
        log.debug("a malformed request", exc_info=True)
        self.handle_close()


class Listener(TcpWSGIServer):  # type: ignore[misc]
    """One address; `headers` go with what is refused before the application sees it."""

    channel_class = Channel
    headers: Headers = ()

    def maintenance(self, now: float) -> None:
        """Nothing. The library would only mark what is too old, and asks a peer who does not read to take note."""

    def tidy(self, now: float) -> None:
        """Close what is too old, and make room for one more; `now` is unix time.

        Only between two turns of the library's loop: within one, the descriptor of a connection that is closed may
        become that of another one, which would then be closed in its place.
        """
        by_age = sorted(self.active_channels.values(), key=lambda channel: channel.creation_time)
        surplus = len(by_age) - CONNECTIONS
        for number, channel in enumerate(by_age):
            if number < surplus or not now - CONNECTION_SECONDS < channel.creation_time <= now:
                channel.handle_close()


def quieten() -> None:
    """Say nothing of clients who hang up, nor of more requests than threads: both can be had at will."""
    for name in ("waitress", "waitress.queue"):
        logging.getLogger(name).setLevel(logging.ERROR)

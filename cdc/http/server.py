"""The HTTP server: `http.server` with limits, so that a probe is answered regardless of other clients.

It reads what the publisher's loop has recorded and waits for nothing: no lock is shared with the loop, and no request
leads to another server.
"""

import contextlib
import logging
import socket
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Protocol, Self

from cdc.http import address
from cdc.http.answers import Answer
from cdc.http.request import RequestHandler

log = logging.getLogger(__name__)

CONNECTIONS: Final = 64
"""Connections at the same time, and threads, for each address. One more, and the oldest is closed."""
CONNECTION_SECONDS: Final = 10.0
"""From the first byte to the last: a probe has a timeout of a second."""
_TURN_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 2.0


class Answers(Protocol):
    """The answers that are served: see `cdc.http.application`."""

    def answer(self, method: str, path: str, accept: str) -> Answer:
        """Answer a request, from any thread; `accept` is the value of its Accept header."""
        ...


class HttpListener(ThreadingHTTPServer):
    """One address; a thread for each connection."""

    def __init__(self, bound: socket.socket, application: Answers) -> None:
        super().__init__(bound.getsockname()[:2], RequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.application = application
        self.connections: dict[socket.socket, float] = {}
        """The open ones, the oldest first, with the monotonic time at which each began."""
        # A connection that is closed while it is shut down may have passed its file descriptor on to another.
        self._changed = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; when there are too many, close the oldest connection first."""
        with self._changed:
            if len(self.connections) >= CONNECTIONS:
                _hang_up(next(iter(self.connections)))
            self._changed.wait_for(lambda: len(self.connections) < CONNECTIONS)
            self.connections[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._changed:
            self.connections.pop(request, None)
            self._changed.notify()
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called by `serve_forever` at least every `poll_interval`."""
        self.tidy(time.monotonic() - CONNECTION_SECONDS)

    def tidy(self, before: float) -> None:
        """End the connections that began before a monotonic time: it wakes the threads that read or write them."""
        with self._changed:
            for connection, began in self.connections.items():
                if began < before:
                    _hang_up(connection)

    def handle_error(self, *_: object) -> None:
        """Log errors, except those of clients who leave: anyone could fill the log."""
        if not isinstance(sys.exception(), OSError):
            log.exception("the HTTP server continues after an error", extra={"event": "http_server_error"})


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class HttpServer:
    """A context manager: listens at `listen` (host:port) from enter to exit.

    Enter raises ConfigError when it cannot.
    """

    def __init__(self, listen: str, application: Answers) -> None:
        self._listen = listen
        self._application = application
        self._stopped = threading.Event()
        self.addresses: list[str] = []
        """Where it listens, as host:port."""

    def __enter__(self) -> Self:
        self.listeners = [HttpListener(bound, self._application) for bound in address.bind(self._listen)]
        self.addresses = [address.text(listener.socket) for listener in self.listeners]
        self._threads = [
            threading.Thread(target=self._run, args=(listener,), name="http", daemon=True)
            for listener in self.listeners
        ]
        for thread in self._threads:
            thread.start()
        log.info(
            "listening", extra={"event": "listening", "http": ", ".join(f"http://{where}/" for where in self.addresses)}
        )
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stopped.set()
        for listener in self.listeners:
            _hang_up(listener.socket)  # it wakes the thread, which would otherwise look only now and then
            listener.shutdown()
            listener.server_close()
            listener.tidy(float("inf"))
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def _run(self, listener: HttpListener) -> None:
        while True:
            try:
                listener.serve_forever(_TURN_SECONDS)
                return
            except Exception:  # of any kind: when this thread dies, every probe fails
                log.exception("the HTTP server continues after an error", extra={"event": "http_server_error"})
            if self._stopped.wait(_TURN_SECONDS):
                return

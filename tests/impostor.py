"""Whoever listens where a publisher should: answers each connection with what the test says."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

Conversation = Callable[[socket.socket], None]


class Impostor:
    """Listens on a free port of loopback, reads a request, and then talks as `talk` does. A context manager."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="impostor", daemon=True)
        self.requests: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._leaving.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while not self._leaving.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                self.requests.append(connection.recv(65_536))
                self._talk(connection)


def answering(body: bytes, status: str = "200 OK", headers: str = "Content-Type: application/json\r\n") -> Conversation:
    """One HTTP answer."""
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lambda connection: connection.sendall(head.encode() + body)

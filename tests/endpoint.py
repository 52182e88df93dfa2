"""A client of the HTTP endpoint, and raw bytes for what no client would send."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tests.pipeline import PATIENCE, Pipeline, Running, eventually

LOOPBACK: Final = "127.0.0.1:0"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parts(address: str) -> tuple[str, int]:
    """host and port of `host:port`."""
    split = urlsplit(f"http://{address}")
    assert split.hostname
    assert split.port
    return split.hostname, split.port


def ask(address: str, path: str, *, method: str = "GET", accept: str = "*/*", seconds: float = PATIENCE) -> Reply:
    """One request in a connection of its own."""
    connection = http.client.HTTPConnection(*parts(address), timeout=seconds)
    try:
        connection.request(method, path, headers={"Accept": accept})
        response = connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def connected(address: str) -> socket.socket:
    return socket.create_connection(parts(address), timeout=PATIENCE)


def raw(address: str, request: bytes, *, more: bool = False) -> bytes:
    """Send bytes, tell that these were all unless there are `more`, and read until the server closes the connection."""
    with connected(address) as client:
        try:
            client.sendall(request)
            if not more:
                client.shutdown(socket.SHUT_WR)
            return read_all(client)
        except OSError:  # it was closed in the middle
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Everything until the end of the connection, whichever way it ends."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


class Endpoint:
    """The endpoint of a publisher that was started with `listening`."""

    def __init__(self, running: Running) -> None:
        self.running = running.logs("listening")
        (line,) = (line for line in running.log if line["message"] == "listening")
        self.address = urlsplit(line["http"].split(", ")[0]).netloc

    def ask(self, path: str, accept: str = "*/*") -> Reply:
        return ask(self.address, path, accept=accept)

    def ready(self) -> tuple[str, int]:
        """State and status of `/readyz`."""
        reply = self.ask("/readyz")
        return reply.json["state"], reply.status

    def reaches(self, state: str, status: int, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait until the publisher is in a state; returns what `/readyz` says."""
        seen: list[tuple[str, int]] = []

        def reached() -> bool:
            now = self.ready()
            if now not in seen[-1:]:
                seen.append(now)
            return now == (state, status)

        eventually(reached, f"{state} in {seen}", seconds)
        reply = self.ask("/readyz")
        assert reply.json["state"] == state, reply.json
        found: dict[str, Any] = reply.json
        return found


def listening(pipeline: Pipeline, **http: Any) -> Endpoint:
    """Start the publisher with an endpoint at a free port; `http` are further settings of that section."""
    pipeline.settings["http"] = {"listen": LOOPBACK, **http}
    return Endpoint(pipeline.start())

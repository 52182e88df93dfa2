"""The HTTP server among strangers: whatever they send, probes are answered, nothing stays and nothing is logged."""

import contextlib
import gc
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Literal

import pytest

from cdc.errors import ConfigError
from cdc.http import server as server_module
from cdc.http.application import Application
from cdc.http.request import RequestHandler
from cdc.http.server import CONNECTIONS, HttpListener, HttpServer
from tests import specimen
from tests.endpoint import LOOPBACK, ask, connected, parts, raw, read_all
from tests.pipeline import eventually

NEVER_READ = 4096
PHASES: tuple[Literal["setup", "call", "teardown"], ...] = ("setup", "call", "teardown")


@pytest.fixture(scope="module")
def shared() -> Iterator[HttpServer]:
    """A server of which no connection is left in memory."""
    with HttpServer(LOOPBACK, Application(specimen.metrics(), specimen.IDENTITY)) as listening:
        yield listening
        eventually(
            lambda: not any(isinstance(each, RequestHandler) for each in gc.get_objects()), "no connection is left"
        )


@pytest.fixture
def server(shared: HttpServer, caplog: pytest.LogCaptureFixture) -> Iterator[HttpServer]:
    """The server, which answers after the test, too, has no connection left, and nothing to log."""
    caplog.set_level(logging.INFO)
    yield shared
    answers(shared)
    eventually(lambda: open_connections(shared) == 0, "no connection is left")
    assert [record.getMessage() for phase in PHASES for record in caplog.get_records(phase)] == []


@pytest.fixture
def address(server: HttpServer) -> str:
    return server.addresses[0]


def answers(server: HttpServer) -> None:
    """A probe is answered, and what is answered is right."""
    reply = ask(server.addresses[0], "/readyz", seconds=5)
    assert (reply.status, reply.json["state"]) == (200, "streaming")


def open_connections(server: HttpServer) -> int:
    return sum(len(listener.connections) for listener in server.listeners)


def status(answer: bytes) -> int | None:
    """Of the one answer that came; None when there was none."""
    assert answer.count(b"HTTP/1.") <= 1
    return int(answer.split()[1]) if answer else None


def test_it_listens_says_so_and_gives_everything_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = threading.active_count()
    with HttpServer("localhost:0", Application(specimen.metrics(), specimen.IDENTITY)) as server:
        for address in server.addresses:
            assert ask(address, "/livez").status == 200
        assert f"http://{server.addresses[0]}/" in caplog.records[0].__dict__["http"]
    eventually(lambda: threading.active_count() == before, "its threads end")
    with pytest.raises(ConnectionRefusedError):
        ask(server.addresses[0], "/livez")


def test_a_port_that_is_taken_leaves_nothing_behind(server: HttpServer) -> None:
    before = threading.active_count()
    with (
        pytest.raises(ConfigError, match="the port is taken"),
        HttpServer(server.addresses[0], Application(specimen.metrics(), specimen.IDENTITY)),
    ):
        pytest.fail("it listens")
    assert threading.active_count() == before


def test_no_answer_names_the_server_software(address: str) -> None:
    assert "Server" not in ask(address, "/livez").headers
    assert b"Server" not in raw(address, b"nonsense\r\n\r\n")


CHUNK = b"100\r\n" + b"x" * 256 + b"\r\n"
REFUSED = {
    "header of a megabyte": (b"GET /livez HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
    "endless header lines": (b"GET /livez HTTP/1.1\r\n" + b"X-Y: z\r\n" * 100_000, 431),
    "endless first line": (b"GET /" + b"a" * 1_000_000, 431),
    "method in lower case": (b"get /livez HTTP/1.1\r\n\r\n", 400),
    "method with a NUL": (b"G\x00T /livez HTTP/1.1\r\n\r\n", 400),
    "method that is none": (b"BREW /livez HTTP/1.1\r\n\r\n", 405),
    "no ASCII in the path": (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
    "no method": (b" /livez HTTP/1.1\r\n\r\n", 400),
    "another version": (b"GET /livez HTTP/9.9.9\r\n\r\n", 400),
    "bare line feeds": (b"GET /livez HTTP/1.1\nHost: x\n\n", None),
    "line feed in a header": (b"GET /livez HTTP/1.1\r\nX: a\nY: b\r\n\r\n", 400),
    "folded header": (b"GET /livez HTTP/1.1\r\n X: y\r\n\r\n", 400),
    "space before the colon": (b"GET /livez HTTP/1.1\r\nContent-Length : 5\r\n\r\n", 400),
    "NUL in a header": (b"GET /livez HTTP/1.1\r\nX: \x00\r\n\r\n", 400),
    "two lengths": (b"GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "negative length": (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    "length with a sign": (b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello", 400),
    "length of 5000 digits": (b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
    "body of a gigabyte": (b"POST / HTTP/1.1\r\nContent-Length: 1073741824\r\n\r\n" + b"x" * 1_000_000, 413),
    "body of two kilobytes": (b"POST / HTTP/1.1\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, 413),
    "chunks of two kilobytes": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK * 8, 413),
    "unknown coding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunk of no size": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "chunks without end": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK * 500,
        413,
    ),
    "address that is none": (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
    "chunk that is longer than it says": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n",
        400,
    ),
    "version of the future": (b"GET /livez HTTP/3.0\r\n\r\n", 505),
    "greeting of TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2 + b"\r\n\r\n", 400),
    "nothing but zeros": (b"\x00" * 100_000, 431),
    "half a request": (b"GET /livez HTT", None),
    "nothing": (b"", None),
}  # fmt: skip
TAKEN = {
    "HTTP/0.9": (b"GET /livez\r\n\r\n", 200),
    "HTTP/1.0 that wants to stay": (b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", 200),
    "path upwards": (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", 404),
    "path upwards in code": (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n\r\n", 404),
    "NUL in the path": (b"GET /livez%00.html HTTP/1.1\r\n\r\n", 404),
    "no text in the path": (b"GET /%ff%fe%c3%28 HTTP/1.1\r\n\r\n", 404),
    "line feeds in the path": (b"GET /%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\n\r\n", 404),
    "another host": (b"GET http://example.org/livez HTTP/1.1\r\nHost: example.org\r\n\r\n", 200),
    "as a proxy": (b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", 404),
    "query of code": (b"GET /status?<script>alert(1)</script> HTTP/1.1\r\n\r\n", 200),
    "length and chunks": (
        b"POST /livez HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /status HTTP/1.1\r\n\r\n",
        405,
    ),
    "request in the body": (b"GET /livez HTTP/1.1\r\nContent-Length: 24\r\n\r\nGET /status HTTP/1.1\r\n\r\n", 200),
    "300 requests at once": (b"GET /metrics HTTP/1.1\r\n\r\n" * 300, 200),
    "waits to continue": (b"GET /livez HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_malformed_requests_are_refused(server: HttpServer, kind: str) -> None:
    request, expected = REFUSED[kind]
    answer = raw(server.addresses[0], request)
    # A client that is still sending when it is refused may find the connection closed before it reads the answer.
    assert status(answer) in {expected, None if len(request) > NEVER_READ else expected}
    assert b"Traceback" not in answer
    answers(server)


@pytest.mark.parametrize("kind", TAKEN)
def test_an_odd_request_gets_one_answer_and_the_connection_ends(server: HttpServer, kind: str) -> None:
    request, expected = TAKEN[kind]
    answer = raw(server.addresses[0], request, more=True).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert status(answer) == (expected or 200)
    assert b"Set-Cookie" not in answer.partition(b"\r\n\r\n")[0]
    answers(server)


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/status", "/metrics", "/nothing"])
def test_head_is_answered_with_the_headers_of_get_and_no_body(address: str, path: str) -> None:
    got, head = (ask(address, path, method=method) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (got.status, b"")
    assert head.headers.keys() == got.headers.keys()
    assert int(got.headers["Content-Length"]) == len(got.body) > 0
    assert got.headers["Connection"] == "close"


def test_a_refusal_has_the_headers_of_every_other_answer(address: str) -> None:
    refused = raw(address, b"nonsense\r\n\r\n").decode()
    assert refused.startswith("HTTP/1.0 400 Bad Request\r\n")
    for header in ("X-Content-Type-Options: nosniff", "Cache-Control: no-store", "X-Frame-Options: DENY"):
        assert f"\r\n{header}\r\n" in refused


def test_a_probe_is_answered_while_hundreds_of_connections_say_nothing(server: HttpServer) -> None:
    with contextlib.ExitStack() as idle:
        for number in range(3 * CONNECTIONS):
            client = idle.enter_context(connected(server.addresses[0]))
            client.sendall(b"GET /livez HTTP/1.1\r\nX: y" if number % 2 else b"")
        answers(server)
        assert open_connections(server) <= CONNECTIONS


@pytest.fixture
def hurried(server: HttpServer) -> Iterator[HttpServer]:
    """The server, with less patience for a connection."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(server_module, "CONNECTION_SECONDS", 0.5)
        yield server


def test_a_client_that_sends_slowly_is_disconnected(hurried: HttpServer) -> None:
    ended = threading.Event()
    with connected(hurried.addresses[0]) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.05):
                    client.sendall(b"X")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert read_all(client) == b""
        finally:
            ended.set()
            dripping.join()


def test_a_client_that_does_not_read_is_disconnected(hurried: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(hurried._application, Application)
    page = hurried._application._page
    monkeypatch.setattr(page, "answer", page.answer._replace(body=b"x" * 8_000_000))
    with contextlib.ExitStack() as clients:
        for _ in range(8):
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NEVER_READ)
            client.connect(parts(hurried.addresses[0]))
            client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 50)
        eventually(lambda: open_connections(hurried) == 0, "they are cut off")


def test_clients_that_vanish_in_the_middle_leave_nothing(server: HttpServer) -> None:
    for request in (
        b"",
        b"GET /me",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx",
    ):
        for _ in range(25):
            with connected(server.addresses[0]) as client:
                # A reset instead of an orderly end.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(request)
    answers(server)


def test_many_at_once_are_all_answered(server: HttpServer) -> None:
    found: list[int] = []

    def visit() -> None:
        found.extend(ask(server.addresses[0], path).status for path in ("/readyz", "/metrics", "/status", "/", "/no"))

    visitors = [threading.Thread(target=visit) for _ in range(20)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert sorted(found) == [200] * 80 + [404] * 20


def test_the_server_continues_after_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpServer(LOOPBACK, Application(specimen.metrics(), specimen.IDENTITY)) as server:
        real, failed = HttpListener.tidy, threading.Event()

        def fail_once(self: HttpListener, before: float) -> None:
            if not failed.is_set():
                failed.set()
                raise RuntimeError("a mistake")
            real(self, before)

        monkeypatch.setattr(HttpListener, "tidy", fail_once)
        assert failed.wait(10)
        answers(server)

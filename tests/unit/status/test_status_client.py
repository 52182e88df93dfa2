"""Asking a publisher over HTTP: the answer is believed only when it is one."""

import socket
import threading
from typing import Any

import orjson
import pytest

from cdc.status import client
from cdc.status.client import NoAnswer
from cdc.status.from_metrics import describe
from tests import specimen
from tests.impostor import Impostor, answering

NOW = 1_790_000_000.0


def told(**changes: Any) -> bytes:
    """What `/status` of a publisher at work holds, but for `changes`."""
    return orjson.dumps(describe(specimen.metrics(NOW), specimen.IDENTITY, NOW).served() | changes)


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("*:8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        ("[fe80::1]:8080", "http://[fe80::1]:8080"),
        ("publisher.internal:80", "http://publisher.internal:80"),
    ],
)
def test_the_endpoint_of_this_machine_is_asked_at_an_address_that_answers(listen: str, url: str) -> None:
    assert client.url_of(listen) == url


def test_a_port_that_the_system_chooses_cannot_be_asked() -> None:
    with pytest.raises(NoAnswer, match="the system chooses the port"):
        client.url_of("127.0.0.1:0")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://host:8080", "http://host:8080"),
        ("http://host:8080/", "http://host:8080"),
        ("https://host/cdc/status", "https://host/cdc"),
    ],
)
def test_an_address_may_be_given_with_or_without_the_path(given: str, url: str) -> None:
    assert client.checked(given) == url


@pytest.mark.parametrize(
    "given",
    ["host:8080", "ftp://host", "http://", "http://u:p@host", "http://host:99999", "http://host:0", "http://h?x"],
)
def test_an_invalid_address_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        client.checked(given)


def test_a_publisher_is_read_in_full() -> None:
    with Impostor(answering(told())) as publisher:
        found = client.ask(f"http://{publisher.address}")
    assert publisher.requests[0].startswith(b"GET /status HTTP/1.1\r\n")
    assert (found.state, found.ready, found.source) == ("streaming", True, "endpoint")
    assert found.slot.name == "cdc_publisher"
    assert found.topics["outbox.event.order"].events == 30_000
    assert found.publisher
    assert found.publisher.pid == 7
    assert len(found.history.times) == 299


def test_json_has_the_publishers_document_and_its_url() -> None:
    body = orjson.loads(told(news_of_a_later_version=[1]))
    with Impostor(answering(orjson.dumps(body))) as publisher:
        line = orjson.loads(client.ask(f"http://{publisher.address}").json_line())
    assert line["slot"].pop("active_pid") is None
    assert {name: line[name] for name in body} == body
    assert {name: line[name] for name in line.keys() - body.keys()} == {
        "source": "endpoint",
        "url": f"http://{publisher.address}",
        "notes": [],
        "hint": None,
        "memory": None,
        "table": None,
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the answer is not JSON"),
        (b"<html>", "the answer is not JSON"),
        (b"[" * 100_000, "the answer is not JSON"),
        (b"[]", "the answer is not a publisher's status"),
        (b"{}", "not a publisher's status (version: Field required)"),
        (told(state="splendid"), "not a publisher's status (state:"),
        (told(state=None), "not that of a running publisher"),
        (told(running=False), "not that of a running publisher"),
        (told(lag={"bytes": -1}), "not a publisher's status (lag.bytes:"),
        (told(lag={"seconds": "soon"}), "not a publisher's status (lag.seconds:"),
        (told(slot={"name": "x" * 301}), "not a publisher's status (slot.name:"),
        (told(topics={"t" * 301: {}}), "not a publisher's status (topics."),
        (told(history={"times": [0.0] * 601}), "not a publisher's status (history.times:"),
        (told(lag={"seconds": 0.123456}).replace(b"0.123456", b"1e999"), "the answer is not JSON"),
        (b" " * (8 * 1024 * 1024 + 1), "larger than 8 MB"),
    ],
    ids=range(15),
)
def test_an_answer_of_another_program_is_refused(body: bytes, reason: str) -> None:
    with Impostor(answering(body)) as stranger, pytest.raises(NoAnswer) as refused:
        client.ask(f"http://{stranger.address}", 20)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        ("404 Not Found", "", "HTTP status 404"),
        ("503 Service Unavailable", "", "HTTP status 503"),
        ("302 Found", "Location: http://127.0.0.1:1/status\r\n", "HTTP status 302"),
    ],
)
def test_another_status_is_no_answer_and_no_redirect_is_followed(status: str, headers: str, reason: str) -> None:
    with Impostor(answering(told(), status, headers)) as stranger, pytest.raises(NoAnswer, match=reason):
        client.ask(f"http://{stranger.address}")
    assert len(stranger.requests) == 1


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_an_answer_that_is_not_http_is_refused(answer: bytes) -> None:
    with Impostor(lambda connection: connection.sendall(answer)) as stranger, pytest.raises(NoAnswer, match="not HTTP"):
        client.ask(f"http://{stranger.address}")


def test_header_lines_without_end_are_no_answer() -> None:
    def chatter(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000)

    with Impostor(chatter) as stranger, pytest.raises(NoAnswer, match="not HTTP"):
        client.ask(f"http://{stranger.address}")


def test_an_answer_that_comes_a_byte_at_a_time_is_not_waited_for() -> None:
    enough = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not enough.wait(0.05):
            connection.sendall(b" ")

    with Impostor(drip) as stranger:
        with pytest.raises(NoAnswer, match=r"no answer within 0\.5 s"):  # by itself it would never end
            client.ask(f"http://{stranger.address}", 0.5)
        enough.set()


def test_headers_that_come_a_byte_at_a_time_are_not_waited_for() -> None:
    enough = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not enough.wait(0.05):
            connection.sendall(b"x")

    with Impostor(drip) as stranger:
        with pytest.raises(NoAnswer, match=r"no answer within 0\.5 s"):
            client.ask(f"http://{stranger.address}", 0.5)
        enough.set()


def test_a_server_that_sends_nothing_is_given_up() -> None:
    enough = threading.Event()

    def wait(_: socket.socket) -> None:
        enough.wait(30)

    with Impostor(wait) as stranger:
        with pytest.raises(NoAnswer, match=r"no answer within 0\.3 s"):
            client.ask(f"http://{stranger.address}", 0.3)
        enough.set()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid:80", "https://127.0.0.1:1"])
def test_an_address_without_a_server_gives_one_phrase(url: str) -> None:
    with pytest.raises(NoAnswer) as silence:
        client.ask(url)
    assert str(silence.value)
    assert "\n" not in str(silence.value)


def test_the_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Impostor(answering(told())) as publisher:
        assert client.ask(f"http://{publisher.address}").state == "streaming"

"""What is answered at which path, and with which headers."""

import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import orjson
import pytest

from cdc.http.application import Application, Routes
from cdc.telemetry.metrics import FAILED, STARTING, WAITING, Metrics, Trouble
from tests import specimen
from tests.endpoint import Reply

PATHS = ("/", "/livez", "/readyz", "/status", "/metrics")


@pytest.fixture
def metrics() -> Metrics:
    return specimen.metrics()


@pytest.fixture
def application(metrics: Metrics) -> Application:
    return Application(metrics, specimen.IDENTITY)


def ask(application: Routes, path: str, method: str = "GET", accept: str = "*/*") -> Reply:
    """What the application answers."""
    answer = application.answer(method, path, accept)
    return Reply(answer.status, answer.headers, answer.body)


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_nothing_is_cached_framed_guessed_or_loaded_from_elsewhere(application: Application, path: str) -> None:
    headers = ask(application, path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert not [name for name in headers if name.startswith("Access-Control") or name == "Server"]


@pytest.mark.parametrize("path", ["/nothing", "", "//", "/../etc/passwd", "/status/", "/\x00", "/STATUS", "*"])
def test_an_unknown_path_is_answered_with_the_known_ones(application: Application, path: str) -> None:
    reply = ask(application, path)
    assert reply.status == 404
    assert reply.text == "Not found. The paths are: /, /livez, /readyz, /status, /metrics\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused_with_those_that_are_allowed(application: Application, method: str) -> None:
    reply = ask(application, "/metrics", method)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")


def test_readiness_is_json_or_one_line_of_text(application: Application) -> None:
    reply = ask(application, "/readyz")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.json.keys() == {"state", "ready", "summary", "since"}
    assert (reply.json["state"], reply.json["ready"]) == ("streaming", True)
    line = ask(application, "/readyz", accept="text/plain;q=0.9")
    assert line.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert line.text.startswith("streaming")


def test_ready_is_green_while_kafka_is_away_and_red_when_the_slot_is_lost(
    application: Application, metrics: Metrics
) -> None:
    metrics.trouble = Trouble("KafkaUnavailable", "no broker answers", time.time())
    metrics.enter(WAITING, time.time(), "no broker answers")
    reply = ask(application, "/readyz")
    assert (reply.status, reply.json["state"], reply.json["ready"]) == (200, "blocked_by_kafka", True)
    metrics.trouble = Trouble("SlotLost", "the slot is gone", time.time())
    metrics.enter(FAILED, time.time(), "the slot is gone")
    reply = ask(application, "/readyz")
    assert (reply.status, reply.json["state"], reply.json["ready"]) == (503, "slot_lost", False)
    assert reply.json["summary"] == "slot lost: the slot is gone"
    assert ask(application, "/livez").status == 200


def test_live_is_red_when_the_loop_stands_still(application: Application, metrics: Metrics) -> None:
    assert ask(application, "/livez").json == {"alive": True, "summary": "alive"}
    metrics.turned_monotonic = time.monotonic() - 61
    assert ask(application, "/livez").status == 200, "the program has only just begun"
    application._born -= 61
    reply = ask(application, "/livez", accept="text/plain")
    assert (reply.status, reply.text) == (503, "not alive: the main loop has been blocked for more than 60 s\n")


def test_a_publisher_that_has_not_started_is_alive_and_not_ready() -> None:
    application = Application(Metrics(), specimen.IDENTITY)
    assert ask(application, "/livez").status == 200
    reply = ask(application, "/readyz")
    assert (reply.status, reply.json["state"]) == (503, STARTING)
    assert ask(application, "/status").status == ask(application, "/metrics").status == 200


def test_status_is_the_report_as_json(application: Application) -> None:
    reply = ask(application, "/status")
    assert reply.headers["Content-Type"] == "application/json"
    told = orjson.loads(reply.body)
    assert told["slot"]["name"] == "cdc_publisher"
    assert told["topics"][specimen.HOSTILE]["events"] == 10
    assert len(told["history"]["times"]) == len(told["history"]["lag_bytes"]) > 200


def test_an_internal_error_is_answered_without_details(
    application: Application, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cdc.http.application.describe", lambda *_: 1 / 0)
    reply = ask(application, "/status")
    assert (reply.status, reply.text) == (500, "an internal error; see the log\n")
    assert "ZeroDivisionError" in caplog.text


class _Document(HTMLParser):
    """What a document loads and runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside = ""
        self.blocks: dict[str, list[str]] = {"style": [], "script": []}
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self.inside in self.blocks and data.strip():
            self.blocks[self.inside].append(data)


def test_the_page_is_one_document_whose_policy_admits_its_own_style_and_script_only(application: Application) -> None:
    reply = ask(application, "/")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    document = _Document(reply.text)
    policy = reply.headers["Content-Security-Policy"]
    for name, blocks in document.blocks.items():
        (block,) = blocks
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert document.handlers == []
    assert {address for address in document.addresses if ":" in address} == {"data:,"}
    assert set(re.findall(r"https?://[^'\"`\s]+", reply.text)) == {"http://www.w3.org/2000/svg"}


def test_the_page_never_makes_markup_of_a_text(application: Application) -> None:
    page = ask(application, "/")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", page.text)
    assert "require-trusted-types-for 'script'" in page.headers["Content-Security-Policy"]

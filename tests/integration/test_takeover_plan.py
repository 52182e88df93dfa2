"""The commands of docs/debezium.md that plan a take-over, and the REST interface of Kafka Connect as a source."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.program import run_here
from tests.takeover import FOLDER

CONNECTOR = json.loads((FOLDER / "connectors" / "exactly-once.json").read_text())


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server that answers each request alike; yields its URL, and the path and authorization of each request."""
    seen: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_documented_commands_make_valid_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schemas").mkdir()
    worker = "bootstrap.servers=kafka:9092\nkey.converter=org.apache.kafka.connect.storage.StringConverter\n"
    Path("connect-distributed.properties").write_text(worker)
    Path("connector.json").write_text(json.dumps(CONNECTOR))
    planned = run_here(("takeover", "plan", "connector.json", "--worker", "connect-distributed.properties"), {})
    assert planned.returncode == 0, planned.stdout
    Path("cdc-publisher.toml").write_text(planned.stdout)
    validated = run_here(("config", "validate"), {"CDC_POSTGRES__PASSWORD": "x"})
    assert validated.returncode == 0, validated.stderr


def test_a_connector_is_read_from_kafka_connect() -> None:
    with answering(200, json.dumps(CONNECTOR).encode()) as (url, seen):
        done = run_here(
            ("takeover", "plan", f"{url}/connectors/exact", "--json"),
            {"CDC_CONNECT_USERNAME": "u", "CDC_CONNECT_PASSWORD": "pass-word"},
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["connector"] == "exact"
    assert seen == [("/connectors/exact", "Basic dTpwYXNzLXdvcmQ=")]


@pytest.mark.parametrize(
    ("status", "body", "code", "text"),
    [
        (404, b'{"error_code":404,"message":"Connector x not found"}', 1, "404 Connector x not found"),
        (401, b"", 1, "set CDC_CONNECT_USERNAME"),
        (200, b"<html>", 78, "no configuration of a connector"),
    ],
)
def test_a_refusal_of_kafka_connect_is_reported(status: int, body: bytes, code: int, text: str) -> None:
    with answering(status, body) as (url, _):
        done = run_here(("takeover", "plan", f"{url}/connectors/x"), {})
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr


def test_no_answer_of_kafka_connect_is_temporary() -> None:
    with answering(200, b"") as (url, _):
        pass
    done = run_here(("takeover", "plan", f"{url}/connectors/x"), {})
    assert done.returncode == 75, done.stderr
    assert "Connection refused" in done.stderr

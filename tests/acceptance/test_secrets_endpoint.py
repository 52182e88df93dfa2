"""Responses of the endpoint, and the output of `status` and `check`, contain no part of a secret (B23)."""

import http.client
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarded import GuardedPostgres, a_guarded_postgres
from tests.pipeline import Pipeline, Running, eventually, make_pipeline, prepare
from tests.servers import Servers

pytestmark = pytest.mark.timeout(240)

SYLLABLES = ["zwit", "schern", "trill", "pfeif", "gurr"]
SECRET = "zwit@schern:trill/pfeif'gurr"
OTHER = "tschilp%balz"
PATHS = ["/", "/livez", "/readyz", "/status", "/metrics", "/zwit-there-is-none", "/status?token=there-is-none"]


def seen(text: str) -> list[str]:
    """The syllables in a text."""
    return [syllable for syllable in (*SYLLABLES, "tschilp", "balz") if syllable in text.lower()]


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedPostgres]:
    with a_guarded_postgres() as server:
        server.role("publisher", SECRET)
        yield server


@pytest.fixture
def pipeline(
    guarded: GuardedPostgres, servers: Servers, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """Secrets in every setting that can contain one: passwords in files, keys and tokens in the settings."""
    (tmp_path / "password").write_text(SECRET)
    made = prepare(
        make_pipeline(f"{guarded.server.dsn.removesuffix('postgres')}shop", servers.kafka, topic_prefix, tmp_path)
    )
    monkeypatch.setenv("CDC_POSTGRES__PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("CDC_KAFKA__SASL_PASSWORD_FILE", str(tmp_path / "password"))
    made.settings["postgres"]["dsn"] = guarded.dsn("publisher")
    made.settings["kafka"] |= {
        "sasl.username": "u",
        "ssl.key.password": SECRET,
        "sasl.oauthbearer.client.secret": SECRET,
    }
    made.settings["http"] = {"listen": "127.0.0.1:0"}
    yield made
    made.close()


def address(running: Running) -> str:
    """The endpoint's host:port from the log."""
    running.logs("listening")
    (told,) = [line["http"] for line in running.log if line["message"] == "listening"]
    found = re.search(r"http://([^/]+)/", told)
    assert found
    return found[1]


def get(where: str, path: str) -> str:
    """Every response as text: status, headers and body."""
    connection = http.client.HTTPConnection(where, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return f"{answer.status} {answer.getheaders()} {answer.read().decode()}"
    finally:
        connection.close()


def test_no_response_of_the_endpoint_contains_a_secret_b23(pipeline: Pipeline, guarded: GuardedPostgres) -> None:
    running = pipeline.start().streams()
    where = address(running)
    pipeline.insert(1)
    pipeline.settles()
    for path in PATHS:
        answer = get(where, path)
        assert not seen(answer.replace("/zwit-there", "")), (path, answer)
    for command in (
        ("status", "--url", f"http://{where}"),
        ("status", "--json", "--url", f"http://{where}"),
        ("check",),
    ):
        done = pipeline.run_process("-v", *command)
        assert not seen(done.stdout + done.stderr), command
        assert done.stdout
    refuse(guarded)
    try:
        eventually(lambda: "password authentication failed" in get(where, "/status"), "the refusal is in /status")
        for path in PATHS:
            answer = get(where, path)
            assert not seen(answer.replace("/zwit-there", "")), (path, answer)
    finally:
        guarded.set_password("publisher", SECRET)
    assert running.stop() in (0, 75)
    assert not seen("\n".join(map(str, running.log)))


def refuse(guarded: GuardedPostgres) -> None:
    """Change the publisher's password on the server, and terminate its connections."""
    guarded.set_password("publisher", OTHER)
    with guarded.connect() as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'publisher'")

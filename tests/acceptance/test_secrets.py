"""No output contains any part of a secret, in any error (B23).

Every secret consists of syllables between characters that connection strings, addresses, shells and logs quote: if
part of a secret is shown in any notation, a syllable is found.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from cdc.local.postgres import PostgresServer
from tests.pipeline import PATIENCE, Pipeline, make_pipeline, prepare
from tests.servers import PrivatePostgres, Servers

pytestmark = pytest.mark.timeout(240)

SYLLABLES = ["zwit", "schern", "trill", "pfeif", "gurr", "kolk", "tschilp", "balz"]
SECRET = "zwit@schern:trill/pfeif'gurr%kolk\\tschilp $\"balz"
ENCODED = quote(SECRET, safe="")
ESCAPED = SECRET.replace("\\", "\\\\").replace("'", "\\'")

NOWHERE = "nowhere.invalid"
CONNECTIONS = {
    "url": f"postgresql://u:{ENCODED}@{NOWHERE}:1/db",
    "url, not encoded": f"postgresql://u:{SECRET}@127.0.0.1:1/db",
    "url with an @": "postgresql://u:zwit@schern@127.0.0.1:1/db",
    "url with a /": "postgresql://u:zwit/schern@127.0.0.1:1/db",
    "url with a %": "postgresql://u:zwit%schern@127.0.0.1:1/db",
    "url with a blank": "postgresql://u:zwit schern@127.0.0.1:1/db",
    "url with an @ among its parameters": "postgresql://127.0.0.1:1?password=zwit@schern",
    "url of two hosts": f"postgresql://u:{ENCODED}@127.0.0.1:1,{NOWHERE}:2/db?sslpassword={ENCODED}",
    "url of a scheme unknown": f"postgresql+psycopg://u:{ENCODED}@127.0.0.1:1/db",
    "pairs": f"host=127.0.0.1 port=1 user=u password='{ESCAPED}' sslpassword='{ESCAPED}' dbname=db",
    "pairs, not quoted": "host=127.0.0.1 port=1 user=u password=zwit schern dbname=db",
    "pairs, quoted as in SQL": "host=127.0.0.1 port=1 user=u password='zwit''schern' dbname=db",
    "pairs, not closed": "host=127.0.0.1 port=1 user=u password='zwit schern dbname=db",
}
COMMANDS = [
    ("config", "show"),
    ("config", "show", "--json"),
    ("config", "validate"),
    ("slot", "list"),
    ("slot", "create"),
    ("outbox", "init"),
    ("outbox", "init", "--print"),
    ("schema", "list"),
    ("schema", "check"),
    ("schema", "register"),
    ("dlq", "list"),
    ("outbox", "purge", "--dry-run"),
    ("check", "--json"),
    ("status",),
    ("status", "--json"),
    ("start",),
]
# The same secret, from files.
FILED = ["POSTGRES__PASSWORD", "KAFKA__SASL_PASSWORD", "KAFKA__SSL_KEY_PASSWORD", "SCHEMA_REGISTRY__PASSWORD"]
ALL_KAFKA = {
    "sasl.username": "u",
    "sasl.password": SECRET,
    "ssl.key.password": SECRET,
    "ssl.keystore.password": SECRET,
    "sasl.oauthbearer.client.id": "u",
    "sasl.oauthbearer.client.secret": SECRET,
    "sasl.oauthbearer.config": f"principal={SECRET}",
    "debug": "all",
}


def seen(output: str) -> list[str]:
    """The syllables in an output."""
    return [syllable for syllable in SYLLABLES if syllable in output.lower()]


def said(pipeline: Pipeline, *arguments: str, **environment: str) -> str:
    """Run a command, check that its output contains no secrets, and return the output."""
    done = pipeline.run_process(*arguments, **environment)
    output = done.stdout + done.stderr
    assert not seen(output), (arguments, output)
    return output


@pytest.fixture
def unreachable(tmp_path: Path) -> Pipeline:
    """A pipeline whose servers are unreachable."""
    pipeline = make_pipeline("dbname=db", "127.0.0.1:1", "test-", tmp_path)
    pipeline.settings["delivery"] = {"startup_seconds": 0}
    pipeline.settings["schema_registry"] = {"timeout_seconds": 0.5}
    return pipeline


@pytest.mark.parametrize("dsn", CONNECTIONS.values(), ids=CONNECTIONS)
def test_no_command_shows_part_of_the_password_of_an_unreachable_server_b23(unreachable: Pipeline, dsn: str) -> None:
    unreachable.settings["postgres"]["dsn"] = dsn
    output = said(unreachable, "-v", "slot", "list")
    assert "cdc-publisher: " in output
    assert "Traceback" in output
    assert said(unreachable, "config", "show")


def filed(folder: Path) -> dict[str, str]:
    """Variables that name a file with the secret."""
    file = folder / "secret"
    file.write_text(f"{SECRET}\n")
    return {f"CDC_{name}_FILE": str(file) for name in FILED}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_a_secret_of_any_section_b23(
    unreachable: Pipeline, command: tuple[str, ...], tmp_path: Path
) -> None:
    unreachable.settings["postgres"]["dsn"] = f"postgresql://u@127.0.0.1:1,{NOWHERE}:2/db?sslpassword={ENCODED}"
    from_elsewhere = {"sasl.password", "ssl.key.password"}
    kafka = {name: value for name, value in ALL_KAFKA.items() if name not in from_elsewhere}
    unreachable.settings["kafka"] |= kafka | {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "PLAIN"}
    unreachable.settings["schema_registry"] |= {"url": "http://127.0.0.1:1", "username": "u"}
    log_format = "json" if command == ("start",) else "text"
    assert said(unreachable, "-v", "--log-format", log_format, *command, **filed(tmp_path), PGPASSWORD=SECRET)


REGISTRIES: list[dict[str, Any]] = [
    {"url": f"http://u:{ENCODED}@127.0.0.1:1,http://{NOWHERE}"},
    {"url": "http://u:zwit@schern@127.0.0.1:1"},
    {"url": "http://127.0.0.1:1", "username": "u", "password": SECRET},
    {"url": "http://127.0.0.1:1", "token": SECRET},
    {"url": "https://127.0.0.1:1", "ssl_certificate": "none.pem", "ssl_key": "none.key", "ssl_key_password": SECRET},
]


@pytest.mark.parametrize("registry", REGISTRIES)
def test_no_part_of_a_registrys_secret_is_shown_b23(unreachable: Pipeline, registry: dict[str, Any]) -> None:
    unreachable.settings["schema_registry"] |= registry
    unreachable.settings["topics"]["name"] = "notes"
    assert "cdc-publisher: " in said(unreachable, "-v", "schema", "list")
    assert said(unreachable, "config", "show")


@pytest.mark.parametrize(
    "kafka",
    [
        {"security.protocol": "ssl", "ssl.key.pem": SECRET, "ssl.key.password": SECRET},
        {"security.protocol": "ssl", "ssl.keystore.location": "none.p12", "ssl.keystore.password": SECRET},
        {"security.protocol": "sasl_ssl", "sasl.mechanisms": "SCRAM-SHA-256", "sasl.username": "u"},
        {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc"},
        {"sasl.pasword": SECRET},
    ],
)
def test_librdkafka_errors_about_properties_contain_no_secret_b23(unreachable: Pipeline, kafka: dict[str, Any]) -> None:
    unreachable.settings["kafka"] |= {"sasl.password": SECRET, "debug": "all", **kafka}
    said(unreachable, "-v", "config", "validate")


@pytest.fixture
def guarded(private_postgres: PrivatePostgres) -> PostgresServer:
    """A server that requires the secret as the password of `u`."""
    server = private_postgres()
    hba = server.data / "pg_hba.conf"
    rules = hba.read_text()
    hba.write_text(
        f"host all,replication u 127.0.0.1/32 scram-sha-256\nhost replication u 127.0.0.1/32 scram-sha-256\n{rules}"
    )
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create role u superuser login password {}").format(sql.Literal(SECRET)))
        connection.execute("select pg_reload_conf()")
    return server


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_publisher_with_a_password_publishes_without_showing_it_b23(
    guarded: PostgresServer, servers: Servers, topic_prefix: str, tmp_path: Path, log_format: str
) -> None:
    dsn = f"postgresql://u:{ENCODED}@127.0.0.1:{guarded.port}/postgres"
    pipeline = prepare(make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path))
    pipeline.settings["kafka"] |= ALL_KAFKA
    pipeline.insert(1)
    command = [sys.executable, "-m", "cdc", "--config", str(pipeline.configure()), "-v", "--log-format", log_format]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "start"], stdout=output, stderr=output, env={**os.environ})
    try:
        pipeline_settles(pipeline, process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    text = log.read_text()
    assert not seen(text)
    # librdkafka's own lines come through our logger, all of them.
    assert text.count("cdc.kafka.librdkafka" if log_format == "json" else "[thrd:") > 50
    for line in text.splitlines():
        assert json.loads(line) if log_format == "json" else line[:2] == "20", line
    assert len(pipeline.judge()) == 1


def pipeline_settles(pipeline: Pipeline, process: "subprocess.Popen[bytes]") -> None:
    end = pipeline.wal_end()
    while pipeline.confirmed() < end:
        assert process.poll() is None


@pytest.mark.parametrize("verbose", [(), ("-v",)])
def test_a_wrong_password_is_not_shown_b23(
    guarded: PostgresServer, servers: Servers, tmp_path: Path, verbose: tuple[str, ...]
) -> None:
    wrong = quote(f"{SECRET}!", safe="")
    dsn = f"postgresql://u:{wrong}@127.0.0.1:{guarded.port}/postgres"
    pipeline = make_pipeline(dsn, servers.kafka, "test-", tmp_path)
    for command in (("slot", "list"), ("start",)):
        assert "authentication failed" in said(pipeline, *verbose, *command)

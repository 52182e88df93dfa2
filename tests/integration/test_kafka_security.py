"""Kafka by TLS and SASL, with ACLs: every way in works, and each refusal ends with one line that says what to do."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import CdcError, ConfigError, KafkaRefused, KafkaUnavailable
from cdc.kafka.cluster import Cluster
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.secured import SecuredKafka
from tests.servers import Servers, a_database, topics_deleted
from tests.tls import Authority
from tests.tokens import Tokens

PASSWORD = "zwitschern"
WRONG = "trillern"
REACH_SECONDS = 5.0


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"), {"publisher": PASSWORD})
    with contextlib.closing(kafka):
        kafka.start()
        yield kafka


@pytest.fixture(scope="module")
def tokens() -> Iterator[Tokens]:
    with Tokens("publisher", PASSWORD) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def pipeline(secured: SecuredKafka, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Made by somebody who may do everything."""
    with a_database(servers.dsn) as database, topics_deleted(secured.address) as prefix:
        made = prepare(make_pipeline(database, secured.address, prefix, tmp_path_factory.mktemp("pipeline")))
        yield made
        made.close()


def by_sasl(secured: SecuredKafka, mechanism: str, **properties: str) -> dict[str, str]:
    return {
        "bootstrap.servers": secured.sasl.address,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(secured.authority.file),
        "sasl.mechanisms": mechanism,
        **{name.replace("_", "."): value for name, value in properties.items()},
    }


def by_password(secured: SecuredKafka, mechanism: str, password: str = PASSWORD) -> dict[str, str]:
    return by_sasl(secured, mechanism, sasl_username="publisher", sasl_password=password)


def by_token(secured: SecuredKafka, url: str, secret: str = PASSWORD) -> dict[str, str]:
    oidc = {"method": "oidc", "client.id": "publisher", "client.secret": secret, "token.endpoint.url": url}
    return by_sasl(secured, "OAUTHBEARER") | {f"sasl.oauthbearer.{name}": value for name, value in oidc.items()}


def by_certificate(secured: SecuredKafka, authority: Authority | None = None) -> dict[str, str]:
    issued = (authority or secured.authority).issue("publisher", password=PASSWORD)
    return {
        "bootstrap.servers": secured.mutual.address,
        "security.protocol": "SSL",
        "ssl.ca.location": str(secured.authority.file),
        "ssl.certificate.location": str(issued.certificate),
        "ssl.key.location": str(issued.key),
        "ssl.key.password": PASSWORD,
    }


WAYS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "unsecured token", "certificate"]


@pytest.mark.parametrize("way", WAYS)
def test_the_publisher_publishes_by_every_way_in(
    secured: SecuredKafka, tokens: Tokens, pipeline: Pipeline, way: str
) -> None:
    unsecured = by_sasl(secured, "OAUTHBEARER", sasl_oauthbearer_config="principal=publisher")
    kafka = {
        "OAUTHBEARER": lambda: by_token(secured, tokens.url),
        "unsecured token": lambda: unsecured | {"enable.sasl.oauthbearer.unsecure.jwt": "true"},
        "certificate": lambda: by_certificate(secured),
    }.get(way, lambda: by_password(secured, way))()
    principal = "CN=publisher" if way == "certificate" else "publisher"
    for topic in (pipeline.topic, f"{pipeline.prefix}positions"):
        for operation in ("READ", "WRITE", "DESCRIBE_CONFIGS"):
            secured.grant(principal, operation, "TOPIC", topic)
    pipeline.settings["kafka"] = kafka
    sent = len(pipeline.judge())
    running = pipeline.start().streams()
    pipeline.insert(sent + 1, sent + 2)
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge()) == sent + 2
    assert not any(PASSWORD in line for line in running.messages())


def refusal(properties: dict[str, Any], kind: type[CdcError] = KafkaRefused) -> str:
    """The one line of a cluster that takes us not in, in which no secret is."""
    with pytest.raises(kind) as caught:
        Cluster(properties).reach(REACH_SECONDS)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.hint
    assert PASSWORD not in line
    assert WRONG not in line
    return line


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_told_and_is_not_taken_for_a_broker_that_is_down(
    secured: SecuredKafka, mechanism: str
) -> None:
    line = refusal(by_password(secured, mechanism, WRONG))
    assert f"Kafka at {secured.sasl.address} refuses the connection: SASL authentication error" in line
    assert '"sasl.username" and "sasl.password" in [kafka]' in line


def test_a_token_that_cannot_be_had_is_told_and_an_endpoint_that_is_down_is_waited_for(
    secured: SecuredKafka, tokens: Tokens
) -> None:
    assert "invalid_client" in refusal(by_token(secured, tokens.url, WRONG))
    assert "Could not connect" in refusal(by_token(secured, "http://127.0.0.1:1/token"), KafkaUnavailable)


def test_certificates_that_are_not_accepted_are_told_apart(secured: SecuredKafka, tmp_path: Path) -> None:
    good = by_password(secured, "PLAIN")
    other = Authority(tmp_path, "other")
    foreign = refusal(good | {"ssl.ca.location": str(other.file)})
    assert f"the certificate of Kafka at {secured.sasl.address} is not accepted: " in foreign
    assert '"ssl.ca.location"' in foreign
    named = refusal(good | {"bootstrap.servers": secured.sasl.address.replace("127.0.0.1", "localhost")})
    assert "is not valid for 'localhost'; name the broker as its certificate does" in named
    expired = refusal(by_certificate(secured) | {"bootstrap.servers": secured.expired.address})
    assert "certificate has expired; renew the broker's certificate" in expired


def test_the_broker_wants_a_certificate_of_ours_that_it_trusts(secured: SecuredKafka, tmp_path: Path) -> None:
    kafka = by_certificate(secured)
    without = refusal({name: value for name, value in kafka.items() if not name.startswith(("ssl.cert", "ssl.key"))})
    assert "alert certificate required" in without
    assert '"ssl.certificate.location"' in without
    stranger = refusal(by_certificate(secured, Authority(tmp_path, "stranger")))
    assert '"ssl.certificate.location"' in stranger
    assert '"ssl.key.password"' in refusal(kafka | {"ssl.key.password": WRONG}, ConfigError)


def test_the_wrong_protocol_is_waited_for_and_told(secured: SecuredKafka) -> None:
    plain = refusal({"bootstrap.servers": secured.sasl.address}, KafkaUnavailable)
    assert '"security.protocol"' in plain


@pytest.mark.parametrize("command", [("start",), ("outbox", "init")], ids=" ".join)
def test_a_command_ends_at_once_with_1_where_kafka_refuses_the_password(
    secured: SecuredKafka, pipeline: Pipeline, command: tuple[str, ...]
) -> None:
    pipeline.settings["kafka"] = by_password(secured, "SCRAM-SHA-512", WRONG)
    done = (pipeline.run_process if "start" in command else pipeline.run)(*command)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("cdc-publisher: ")]
    assert "refuses the connection: SASL authentication error" in line
    assert WRONG not in done.stdout + done.stderr

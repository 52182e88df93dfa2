"""What librdkafka tells of connections that fail: what waiting mends, and what it does not."""

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from cdc import errors
from cdc.errors import KafkaRefused
from cdc.kafka import certificates
from cdc.kafka.errors import kafka_error
from cdc.kafka.refusals import Complaints

BROKER = "sasl_ssl://broker.example:9093"
STATE = "(after 302ms in state AUTH_REQ)"


def told(*complaints: tuple[int, str], **given: str) -> Complaints:
    complains = Complaints({name.replace("_", "."): value for name, value in given.items()})
    for code, text in complaints:
        complains(KafkaError(code, text))
    return complains


def refusal(code: int, text: str, **given: str) -> str:
    found = told((code, text), **given).refusal()
    assert isinstance(found, KafkaRefused)
    return str(found)


@pytest.mark.parametrize("place", ["bootstrap", "7"])
def test_a_refusal_is_told_with_its_broker_and_what_to_check(place: str) -> None:
    text = f"{BROKER}/{place}: SASL authentication error: Invalid username or password {STATE}"
    assert refusal(KafkaError._AUTHENTICATION, text) == (
        "Kafka at broker.example:9093 refuses the connection: SASL authentication error: Invalid username or password;"
        ' check "sasl.mechanisms", "sasl.username" and "sasl.password" in [kafka], and the user in Kafka'
    )


@pytest.mark.parametrize(
    ("text", "checked"),
    [
        ("ssl://h:1/bootstrap: Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL"
         " alert number 116 (after 0ms in state APIVERSION_QUERY)", "ssl.certificate.location"),
        ("ssl://h:1/1: SSL handshake failed: error:0A000418:SSL routines::tlsv1 alert unknown ca: SSL alert number 48",
         "ssl.certificate.location"),
        ("ssl://h:1/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number: connecting to a"
         " PLAINTEXT broker listener?", "security.protocol"),
        ('Failed to acquire SASL OAUTHBEARER token: {"error": "invalid_client"}', "sasl.oauthbearer"),
        ("sasl_ssl://h:1/bootstrap: Unsupported or disabled SASL mechanism GSSAPI", "sasl.mechanisms"),
    ],
)  # fmt: skip
def test_what_no_waiting_mends_is_told_apart(text: str, checked: str) -> None:
    assert checked in refusal(KafkaError._SSL, text)


def test_a_token_that_the_broker_refuses_is_no_password() -> None:
    text = f'{BROKER}/bootstrap: SASL authentication error: {{"status":"invalid_token"}} {STATE}'
    assert "sasl.oauthbearer" in refusal(KafkaError._AUTHENTICATION, text, sasl_mechanism="oauthbearer")


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (KafkaError._TRANSPORT, "h:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in"
         " state CONNECT)", "Connect to ipv4#127.0.0.1:1 failed: Connection refused"),
        (KafkaError._RESOLVE, "h:1/bootstrap: Failed to resolve 'h:1': Name or service not known (after 1ms in state"
         " CONNECT)", "Failed to resolve 'h:1': Name or service not known"),
        # A broker that is just being stopped ends handshakes as well.
        (KafkaError._TRANSPORT, "ssl://h:1/1: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker"
         " listener?", "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"),
        (KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: Could not connect to server",
         "Failed to acquire SASL OAUTHBEARER token: Could not connect to server"),
    ],
)  # fmt: skip
def test_what_may_pass_is_no_refusal_but_a_reason(code: int, text: str, reason: str) -> None:
    complaints = told((code, text), (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert complaints.refusal() is None
    assert complaints.reason == reason


def test_a_certificate_that_is_not_accepted_is_looked_at_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def why(*given: Any) -> tuple[str, str]:
        asked.append(given)
        return "it is old", "renew it"

    monkeypatch.setattr(certificates, "why", why)
    text = f"{BROKER}/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker"
    assert refusal(KafkaError._SSL, text, ssl_ca_location="ca.pem") == (
        "the certificate of Kafka at broker.example:9093 is not accepted: it is old; renew it"
    )
    assert asked == [("broker.example:9093", {"ssl.ca.location": "ca.pem"})]


def test_where_nothing_answers_or_no_file_is_there_the_authority_is_what_to_check(tmp_path: Path) -> None:
    for given in ({}, {"ssl.ca.location": str(tmp_path / "none.pem")}):
        reason, hint = certificates.why("127.0.0.1:1", given)
        assert (reason, "ssl.ca.location" in hint) == ("it could not be verified", True)
    assert certificates.why("", {})[0] == "it could not be verified"


@pytest.mark.parametrize(
    ("doing", "right"),
    [("reading topic 't'", "READ"), ("creating topic 't'", "CREATE"), ("looking up topic 't'", "WRITE")],
)
def test_a_missing_right_to_a_topic_is_named_by_what_it_is_needed_for(doing: str, right: str) -> None:
    error = kafka_error(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), doing)
    assert type(error) is errors.KafkaError
    assert right in error.hint

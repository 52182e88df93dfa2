"""Translates properties of Java's Kafka clients, as workers and connectors have them, into those of librdkafka."""

import re
from typing import Final

from cdc.takeover.connector import PLACEHOLDER, is_connection
from cdc.takeover.reading import Options
from cdc.takeover.verdicts import Line, Verdict

_SAME: Final = {
    "bootstrap.servers",
    "security.protocol",
    "sasl.mechanism",
    "ssl.endpoint.identification.algorithm",
    "sasl.kerberos.service.name",
    "client.id",
    "compression.type",
    "linger.ms",
}
_HARMLESS: Final = {
    "the publisher confirms and orders records by its own settings": {
        "acks",
        "retries",
        "delivery.timeout.ms",
        "max.in.flight.requests.per.connection",
        "enable.idempotence",
        "max.block.ms",
        "buffer.memory",
        "batch.size",
        "max.request.size",
        "request.timeout.ms",
        "retry.backoff.ms",
        "metadata.max.age.ms",
        "transaction.timeout.ms",
        "connections.max.idle.ms",
        "reconnect.backoff.ms",
        "reconnect.backoff.max.ms",
    },
    "the publisher writes bytes": {"key.serializer", "value.serializer"},
    "librdkafka has its own": {"ssl.protocol", "ssl.enabled.protocols", "ssl.provider", "client.dns.lookup"},
    "belongs to the Java client": {"metric.reporters", "metrics.recording.level"},
}
_LOGIN: Final = re.compile(r"(?:Plain|Scram)LoginModule\b")
_USER: Final = re.compile(r"""username\s*=\s*["']([^"']*)["']""")
_BY_HAND: Final = "has no counterpart of the same name in librdkafka: set it in [kafka] by hand"


def translate(given: Options) -> None:
    """Translate the properties of the worker's clients, of its producers, and of the connector's own producer.

    The later ones override the earlier ones.
    """
    worker = given.configuration.worker
    found = {name: (f"worker: {name}", value) for name, value in worker.items() if is_connection(name)}
    for prefix, properties, label in (
        ("producer.", worker, "worker: "),
        ("producer.override.", given.configuration.options, ""),
    ):
        for name, value in properties.items():
            if name.startswith(prefix):
                found[name.removeprefix(prefix)] = (f"{label}{name}", value)
    for name, (label, value) in found.items():
        _Property(given, label, value).translate(name)
    if "bootstrap.servers" not in found:
        given.refer("CDC_KAFKA__BOOTSTRAP_SERVERS", "the brokers of Kafka: they are in the worker's file (--worker)")
    if any(PLACEHOLDER.search(value) for _, value in found.values()):
        given.result.notes.append("values of Kafka that the worker takes from elsewhere are variables CDC_KAFKA__...")


class _Property:
    """One property; `label` is the option as it is reported."""

    def __init__(self, given: Options, label: str, value: str) -> None:
        self._given = given
        self._label = label
        self._value = value.strip()

    def translate(self, name: str) -> None:
        """Set the properties of librdkafka."""
        if name == "sasl.jaas.config":
            self._jaas()
        elif name.endswith(("password", ".key.pem", "keystore.key")):
            target = {"ssl.keystore.password": "ssl.keystore.password", "ssl.key.password": "ssl.key.password"}.get(
                name
            )
            self._secret(target) if target else self._say("harmless", "librdkafka reads PEM files without a password")
        elif reason := next((reason for reason, names in _HARMLESS.items() if name in names), ""):
            self._say("harmless", reason)
        elif PLACEHOLDER.search(self._value):
            self._say("refused", f"a placeholder: give its value with --set {name}=VALUE")
        elif name in _SAME:
            self._put(name, self._value or "none")
        elif name.startswith("ssl."):
            self._ssl(name)
        elif name == "partitioner.class" and not self._value:
            self._say("harmless", "empty")
        else:
            self._say("refused", _BY_HAND)

    def _ssl(self, name: str) -> None:
        worker = self._given.configuration.worker
        store = name.split(".")[1]
        kind = worker.get(f"ssl.{store}.type", worker.get(f"producer.ssl.{store}.type", "JKS")).upper()
        if name.endswith(".type"):
            self._say("harmless", "see the location")
        elif name == "ssl.truststore.location" and kind == "PEM":
            self._put("ssl.ca.location", self._value)
        elif name == "ssl.keystore.location" and kind == "PEM":
            self._put("ssl.certificate.location", self._value)
            self._given.result.put("kafka", "ssl.key.location", self._value)
        elif name == "ssl.keystore.location" and kind == "PKCS12":
            self._put("ssl.keystore.location", self._value)
        elif name == "ssl.cipher.suites":
            self._put("ssl.cipher.suites", self._value)
        else:
            self._say("refused", f"librdkafka reads PEM files, not {kind}: set ssl.ca.location in [kafka] by hand")

    def _jaas(self) -> None:
        if not _LOGIN.search(self._value) and not PLACEHOLDER.fullmatch(self._value):
            self._say("refused", "only PlainLoginModule and ScramLoginModule can be translated")
            return
        user = _USER.search(self._value)
        if user and not PLACEHOLDER.search(user[1]):
            self._given.result.put("kafka", "sasl.username", user[1])
        else:
            self._given.refer("CDC_KAFKA__SASL_USERNAME", "the user of Kafka")
        self._given.refer("CDC_KAFKA__SASL_PASSWORD", "the password of Kafka")
        self._say("translated", '"sasl.username", and the variable CDC_KAFKA__SASL_PASSWORD of the environment')

    def _secret(self, name: str) -> None:
        variable = f"CDC_KAFKA__{name.replace('.', '_').upper()}"
        self._given.refer(variable, self._label)
        self._say("translated", f"the variable {variable} of the environment")

    def _put(self, name: str, value: str) -> None:
        self._given.result.put("kafka", name, value)
        self._say("translated", f'[kafka] "{name}"')

    def _say(self, verdict: Verdict, text: str) -> None:
        if self._label.startswith("worker: "):
            secret = re.search(r"password|jaas|\.key$|secret", self._label)
            self._given.result.lines.append(Line(self._label, "********" if secret else self._value, verdict, text))
        else:
            self._given.say(verdict, self._label, text)

"""The configuration of a connector, and of its worker, from each form in which users have it.

| form                                   | recognised by                             |
|----------------------------------------|-------------------------------------------|
| Kafka Connect: name and configuration  | JSON object with an object `config`       |
| Kafka Connect: configuration alone     | any other JSON object                     |
| Strimzi: KafkaConnector, KafkaConnect  | YAML with `kind` and `spec`               |
| Debezium Server, Connect worker        | properties of Java; `debezium.sink.type`  |
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cdc.errors import ConfigError

PLACEHOLDER: Final = re.compile(r"\$\{[^}]*\}")
"""A reference that Kafka Connect or Quarkus resolves: `${file:/run/secrets:password}`, `${env:PASSWORD}`."""

_SERVER_SOURCE: Final = "debezium.source."
_SERVER_FORMAT: Final = "debezium.format."
_SERVER_PRODUCER: Final = "debezium.sink.kafka.producer."
_CONVERTERS: Final = {
    "json": "org.apache.kafka.connect.json.JsonConverter",
    "jsonbytearray": "org.apache.kafka.connect.json.JsonConverter",
    "avro": "io.confluent.connect.avro.AvroConverter",
    "protobuf": "io.confluent.connect.protobuf.ProtobufConverter",
    "cloudevents": "io.debezium.converters.CloudEventsConverter",
    "binary": "io.debezium.converters.BinaryDataConverter",
    "simplestring": "org.apache.kafka.connect.storage.StringConverter",
}

FORMS: Final = "give JSON as Kafka Connect takes it, a KafkaConnector of Strimzi, or properties of Debezium Server"

Kind = Literal["connect", "strimzi", "server"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """A connector's options, by the names that Kafka Connect has for them, and the properties of its worker."""

    kind: Kind
    name: str
    options: Mapping[str, str]
    worker: Mapping[str, str] = field(default_factory=dict)

    def with_worker(self, worker: Mapping[str, str]) -> "Configuration":
        """Return the same with the properties of a worker added."""
        return Configuration(self.kind, self.name, self.options, {**self.worker, **worker})

    def with_options(self, given: Mapping[str, str]) -> "Configuration":
        """Return the same with options replaced; properties that only a worker has go there."""
        worker = {name: value for name, value in given.items() if is_connection(name)}
        options = {name: value for name, value in given.items() if name not in worker}
        return Configuration(self.kind, self.name, {**self.options, **options}, {**self.worker, **worker})


def is_connection(name: str) -> bool:
    """Return whether a property says how to reach Kafka, as workers and producers have it."""
    return name.startswith(("bootstrap.servers", "security.protocol", "sasl.", "ssl."))


def configuration(document: Mapping[str, Any], origin: str) -> Configuration:
    """Return the configuration in a document that comes from `origin`. Raises ConfigError."""
    kind = document.get("kind")
    if kind == "KafkaConnector" and isinstance(document.get("spec"), dict):
        return _strimzi(document, origin)
    if kind is not None and isinstance(document.get("spec"), dict):
        raise ConfigError(f"{origin} is a resource of kind {kind!r}", hint="give the KafkaConnector, not its cluster")
    if isinstance(document.get("config"), dict):
        options = _texts(document["config"], origin)
        return Configuration("connect", str(document.get("name") or options.get("name", "")), options)
    options = _texts(document, origin)
    if any(name.startswith("debezium.") for name in options):
        return _server(options)
    if "connector.class" not in options:
        raise ConfigError(f"{origin} has no configuration of a connector: it lacks connector.class", hint=FORMS)
    return Configuration("connect", options.get("name", ""), options)


def worker(document: Mapping[str, Any], origin: str) -> dict[str, str]:
    """Return the properties of a Connect worker: its properties file, JSON, or Strimzi's KafkaConnect."""
    spec = document.get("spec")
    if document.get("kind") == "KafkaConnect" and isinstance(spec, dict):
        servers = {"bootstrap.servers": str(spec["bootstrapServers"])} if "bootstrapServers" in spec else {}
        return {**_texts(spec.get("config") or {}, origin), **servers}
    options = _texts(document, origin)
    # The images of Confluent and Debezium take each property as a variable: CONNECT_KEY_CONVERTER.
    variables = {
        name.removeprefix("CONNECT_").replace("_", ".").lower(): value
        for name, value in options.items()
        if name.startswith("CONNECT_")
    }
    return {**options, **variables}


def _strimzi(document: Mapping[str, Any], origin: str) -> Configuration:
    spec = document["spec"]
    options = _texts(spec.get("config") or {}, origin)
    if "class" in spec:
        options["connector.class"] = str(spec["class"])
    if "tasksMax" in spec:
        options["tasks.max"] = str(spec["tasksMax"])
    name = str((document.get("metadata") or {}).get("name", ""))
    return Configuration("strimzi", name, options)


def _server(given: Mapping[str, str]) -> Configuration:
    """Translate Debezium Server's names: `debezium.source.X` is X, and formats are converters."""
    options: dict[str, str] = {}
    properties: dict[str, str] = {}
    for name, value in given.items():
        if name.startswith(_SERVER_SOURCE):
            options[name.removeprefix(_SERVER_SOURCE)] = value
        elif name.startswith(_SERVER_PRODUCER):
            producer = name.removeprefix(_SERVER_PRODUCER)
            properties[producer if is_connection(producer) else f"producer.{producer}"] = value
        elif name.startswith(("debezium.transforms", "debezium.predicates")):
            options[name.removeprefix("debezium.")] = value
        elif not name.startswith(_SERVER_FORMAT):
            options[name] = value
    for part in ("key", "value", "header"):
        kind = given.get(f"{_SERVER_FORMAT}{part}", "json").lower()
        options[f"{part}.converter"] = _CONVERTERS.get(kind, kind)
        prefix = f"{_SERVER_FORMAT}{part}."
        options |= {
            f"{part}.converter.{name.removeprefix(prefix)}": value
            for name, value in given.items()
            if name.startswith(prefix)
        }
    return Configuration("server", given.get("debezium.source.topic.prefix", ""), options, properties)


def _texts(options: Mapping[str, Any], origin: str) -> dict[str, str]:
    """Return options as Kafka Connect has them, which are all texts; null means not given."""
    found = {}
    for name, value in options.items():
        if isinstance(value, dict | list):
            raise ConfigError(f"{origin}: option {name!r} is not a text", hint="Kafka Connect takes only texts")
        if value is not None:
            found[str(name)] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPED: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PAIR: Final = re.compile(r"((?:\\.|[^\\=:\s])*)(?:\s*[=:]\s*|\s+|$)(.*)", re.DOTALL)


def properties(text: str) -> Iterator[tuple[str, str]]:
    """Yield names and values of a properties file.

    <https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/util/Properties.html#load(java.io.Reader)>
    """
    line = ""
    for written in re.split(r"\r\n|\r|\n", text):
        part = written.lstrip(" \t\f")
        if not line and part.startswith(("#", "!")):
            continue
        line += part
        if len(line) - len(line.rstrip("\\")) & 1:  # an odd number of backslashes continues the line
            line = line[:-1]
            continue
        if line and (pair := _PAIR.fullmatch(line)):
            yield _unescaped(pair[1]), _unescaped(pair[2])
        line = ""
    if line and (pair := _PAIR.fullmatch(line)):
        yield _unescaped(pair[1]), _unescaped(pair[2])


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(
        lambda found: chr(int(found[1][1:], 16)) if len(found[1]) == 5 else _ESCAPES.get(found[1], found[1]),
        text,
    )

"""Every setting, its type and its default. All of them are frozen; nothing else reads files or the environment."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cdc.config import librdkafka as properties
from cdc.config.kinds import Address, Dsn, Identifier, RegistryUrl, SlotName, Template, Topic
from cdc.config.passwords import with_password
from cdc.errors import ConfigError
from cdc.outbox.events import DEBEZIUM_COLUMNS, Columns


class Section(BaseModel):
    """One table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Postgres(Section):
    """Where the outbox is."""

    dsn: Dsn = Field(
        "", description="required: a URL or key=value pairs, directly to the primary, not through a pooler"
    )
    password: str | None = Field(
        None, description="of the user in dsn, where that holds none; better from a file: CDC_POSTGRES__PASSWORD_FILE"
    )
    slot: SlotName = Field("cdc_publisher", description="replication slot")
    publication: Identifier = Field("cdc_publisher", description="publication that holds the outbox")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Whoever connects takes `dsn` as it is: the password becomes a part of it."""
        dsn, password = (given.get(name) for name in ("dsn", "password")) if isinstance(given, dict) else (None, None)
        if isinstance(dsn, str) and isinstance(password, str) and dsn.strip() and password:
            return {**given, "dsn": with_password(dsn, password)}
        return given


class ColumnNames(Section):
    """The table's column for each part of an event."""

    id: Identifier = Field(DEBEZIUM_COLUMNS.id, description="identity of the event: header id")
    key: Identifier = Field(DEBEZIUM_COLUMNS.key, description="Kafka's key: what is kept in order")
    aggregate: Identifier = Field(
        DEBEZIUM_COLUMNS.aggregate,
        description="aggregate type, told in dead letters and envelopes; [topics] name takes columns",
    )
    type: Identifier = Field(DEBEZIUM_COLUMNS.type, description="event type: header eventType, and its contract")
    payload: Identifier = Field(DEBEZIUM_COLUMNS.payload, description="value: json, jsonb, text or bytea")


class Outbox(Section):
    """Which table, and what its columns mean."""

    table: str = Field("public.outbox", description="schema.table")
    columns: ColumnNames = Field(default_factory=ColumnNames, description="columns by their part in an event")
    headers: list[Identifier] = Field([], description="columns that become record headers of the same name")
    tombstones: bool = Field(False, description="publish a null or blank payload as a tombstone; else it is poison")

    @model_validator(mode="after")
    def _qualified(self) -> "Outbox":
        if not all(self.qualified_name):
            raise ValueError(f"table: {self.table!r} is not schema.table")
        return self

    @property
    def parts(self) -> Columns:
        """The table's columns by their part in an event, as the core takes them."""
        return Columns(**self.columns.model_dump())

    @property
    def qualified_name(self) -> tuple[str, str]:
        """(schema, table); the schema is `public` when none is given."""
        schema, dot, table = self.table.rpartition(".")
        return (schema if dot else "public"), table


class Topics(Section):
    """Names of topics, and whether the publisher makes them."""

    name: Template = Field(
        "outbox.event.{aggregatetype}", description="topic of an event: a template over the row's columns"
    )
    dead_letter: Topic = Field("cdc.dead-letter", description="topic of dead letters, made by outbox init or start")
    positions: Topic = Field(
        "cdc.positions", description="compacted topic in which slots are remembered, made by outbox init or start"
    )
    create: bool = Field(False, description="create missing event topics; otherwise start waits for them, and says so")
    partitions: int = Field(-1, ge=-1, description="of topics that are created; -1: the broker's default")
    replication_factor: int = Field(-1, ge=-1, description="of topics that are created; -1: the broker's default")
    config: dict[str, str | int | float | bool] = Field({}, description="settings of event topics that are created")
    replication: Literal["warn", "refuse", "any"] = Field(
        "warn", description="what to do about topics with fewer than 3 replicas or min.insync.replicas below 2"
    )


class Avro(Section):
    """Contracts and the framing of values."""

    source: Literal["folder", "registry"] = Field("folder", description="where contracts come from")
    schemas: Path = Field(
        Path("schemas"), description="folder of .avsc files, one per event type; in a file, relative to that file"
    )
    framing: Literal["single-object", "confluent"] = Field(
        "single-object",
        description="what precedes the Avro body: fingerprint, or magic byte and schema id; confluent with a registry",
    )
    subject: Literal["topic-record-name", "record-name", "topic-name"] = Field(
        "topic-record-name", description="how subjects are named, in confluent framing"
    )
    types: dict[str, str] = Field({}, description="record names of event types that are named otherwise")
    unknown_types: Literal["reject", "envelope"] = Field(
        "reject", description="events without a contract: poison, or within the contract cdc.Envelope"
    )
    unknown_fields: Literal["reject", "ignore"] = Field(
        "reject", description="fields that the contract does not know: poison, or left out"
    )
    bytes: Literal["avro-json", "base64"] = Field("avro-json", description="how JSON text stands for bytes and fixed")
    bytea: Literal["framed", "body"] = Field("framed", description="bytea payloads: as they are, or framed first")


class SchemaRegistry(Section):
    """Confluent-compatible Schema Registry."""

    url: RegistryUrl | None = Field(
        None, description="address of the registry; several, of one cluster, are separated by commas"
    )
    auto_register: bool = Field(False, description="let start register contracts; otherwise schema register does")
    username: str | None = Field(None, description="for basic authentication")
    password: str | None = Field(None, description="for basic authentication")
    token: str | None = Field(None, description="for bearer authentication")
    ssl_ca: str | None = Field(None, description="file of the authorities to trust; unset: those of Mozilla")
    ssl_certificate: str | None = Field(None, description="file of the certificate to show to the registry")
    ssl_key: str | None = Field(None, description="file of the certificate's key, when it is not in the same file")
    ssl_key_password: str | None = Field(None, description="password of the key")
    timeout_seconds: float = Field(
        10, gt=0, description="how long one request may take, and for how long a failed one is repeated"
    )

    @model_validator(mode="after")
    def _coherent(self) -> "SchemaRegistry":
        in_url = self.url is not None and "@" in self.url
        wrong = [
            problem
            for problem, is_wrong in (
                ("token excludes username", bool(self.token and self.username)),
                ("token excludes credentials in url", bool(self.token and in_url)),
                ("username excludes credentials in url", bool(self.username and in_url)),
                ("username may not hold a colon", ":" in (self.username or "")),
                ("password needs username", bool(self.password and not self.username)),
                ("ssl_key needs ssl_certificate", bool(self.ssl_key and not self.ssl_certificate)),
                ("ssl_key_password needs ssl_certificate", bool(self.ssl_key_password and not self.ssl_certificate)),
            )
            if is_wrong
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class Delivery(Section):
    """What is promised, and how long to try."""

    guarantee: Literal["at-least-once", "exactly-once"] = Field("at-least-once", description="delivery guarantee")
    on_poison: Literal["stop", "dead-letter"] = Field(
        "stop", description="events that cannot be published: stop before the first, or send each to the dead letters"
    )
    transaction_ms: int = Field(
        100, gt=0, le=10_000, description="how long a Kafka transaction takes events, with exactly-once"
    )
    accelerator: Literal["auto", "native", "python"] = Field(
        "auto", description="what makes records of rows: the native accelerator if it is installed, or one of the two"
    )
    sequence: bool = Field(False, description="number the records of each partition in the header cdc-sequence")
    startup_seconds: float = Field(
        15, ge=0, description="how long start tries to reach the servers for the first time before it exits with 75"
    )
    drain_seconds: float = Field(
        25, ge=0, description="how long a stop waits for Kafka to confirm what was sent; beyond it the exit code is 75"
    )


class Http(Section):
    """Health, metrics and status over HTTP."""

    listen: Address | None = Field(
        None, description="host:port to listen on, such as 127.0.0.1:8080; unset: no endpoint"
    )
    linger_seconds: float = Field(
        5, ge=0, description="how long the endpoint tells of an error that needs a person before the process exits"
    )


class Tracing(Section):
    """Spans of events; where they go is for OpenTelemetry's own environment to say."""

    enabled: bool = Field(
        False, description="a span for each event, from commit to confirmation, by OpenTelemetry; needs the extra otel"
    )


class Settings(Section):
    """All settings; the names are those of the file and, in capitals, of the environment."""

    postgres: Postgres = Field(default_factory=Postgres)
    outbox: Outbox = Field(default_factory=Outbox)
    topics: Topics = Field(default_factory=Topics)
    kafka: dict[str, properties.Value] = Field(
        {}, description="any librdkafka property but those that would break the promise"
    )
    avro: Avro = Field(default_factory=Avro)
    schema_registry: SchemaRegistry = Field(default_factory=SchemaRegistry)
    delivery: Delivery = Field(default_factory=Delivery)
    http: Http = Field(default_factory=Http)
    tracing: Tracing = Field(default_factory=Tracing)

    @model_validator(mode="after")
    def _available(self) -> "Settings":
        """Refuse what needs a registry where there is none."""
        problems: list[str] = []
        if self.schema_registry.url is None:
            needs_registry = {'framing = "confluent"': self.avro.framing == "confluent"}
            needs_registry['source = "registry"'] = self.avro.source == "registry"
            problems += [
                f"[avro] {name} needs [schema_registry] url" for name, given in needs_registry.items() if given
            ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def require(settings: Settings, *, postgres: bool = True, kafka: bool = True) -> Settings:
    """The same settings. Raises ConfigError when one that has no default is missing."""
    required = [
        ("[postgres] dsn", "CDC_POSTGRES__DSN", not postgres or settings.postgres.dsn),
        ('[kafka] "bootstrap.servers"', "CDC_KAFKA__BOOTSTRAP_SERVERS", not kafka or _bootstrap(settings)),
    ]
    missing = [
        f"{name} is required: set it in the settings file, or as {env}" for name, env, value in required if not value
    ]
    if missing:
        raise ConfigError(*missing)
    return settings


def _bootstrap(settings: Settings) -> bool:
    return bool(settings.kafka.get("bootstrap.servers") or settings.kafka.get("metadata.broker.list"))

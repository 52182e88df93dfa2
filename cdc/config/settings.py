"""Definitions of all settings: type, default and description. Instances are frozen."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cdc.avro.json_values import JsonForm
from cdc.avro.mapping.rules import Rules
from cdc.config import librdkafka
from cdc.config.kinds import (
    Address,
    Dsn,
    FleetName,
    Identifier,
    Prefix,
    RegistryUrl,
    SlotName,
    Template,
    Topic,
    qualified,
)
from cdc.config.passwords import with_password
from cdc.errors import ConfigError
from cdc.outbox.columns import CLOUD_EVENTS, DEBEZIUM_COLUMNS, Columns, Header, is_own
from cdc.outbox.keys import Form
from cdc.outbox.topic_template import TopicTemplate


class Section(BaseModel):
    """One table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Postgres(Section):
    """Connection to PostgreSQL, and the names of slot and publication."""

    dsn: Dsn = Field(
        "",
        description="connection string of the primary, a URL or key=value pairs; required; do not use a pooler",
    )
    password: str | None = Field(
        None, description="password, if dsn contains none; prefer a file: CDC_POSTGRES__PASSWORD_FILE"
    )
    source: Literal["slot", "polling"] = Field(
        "slot", description="where rows come from: a replication slot, or queries of the outbox table; see polling.md"
    )
    slot: SlotName = Field(
        "cdc_publisher", description="name of the replication slot; with polling, name of the relay in table cdc_relay"
    )
    publication: Identifier = Field(
        "cdc_publisher", description="name of the publication that contains the outbox table"
    )
    poll_seconds: float = Field(
        0.5,
        ge=0.05,
        le=60,
        description="longest time between two queries for new rows, with polling, unless a NOTIFY comes; 50 ms while"
        " there is work",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Merge the password into `dsn`, which is the only setting that connections use."""
        dsn, password = (given.get(name) for name in ("dsn", "password")) if isinstance(given, dict) else (None, None)
        if isinstance(dsn, str) and isinstance(password, str) and dsn.strip() and password:
            return {**given, "dsn": with_password(dsn, password)}
        return given

    @property
    def polls(self) -> bool:
        """Whether rows come from queries of the table, and there is no slot."""
        return self.source == "polling"


class ColumnNames(Section):
    """Column of the outbox table for each part of an event."""

    id: Identifier = Field(DEBEZIUM_COLUMNS.id, description="unique id of the event, sent in the header id")
    key: Identifier = Field(DEBEZIUM_COLUMNS.key, description="record key; events with the same key stay in order")
    aggregate: Identifier = Field(
        DEBEZIUM_COLUMNS.aggregate,
        description="aggregate type, included in dead letters and envelopes; topics come from [topics] name",
    )
    type: Identifier = Field(
        DEBEZIUM_COLUMNS.type, description="event type, sent in the header eventType; selects the contract"
    )
    payload: Identifier = Field(
        DEBEZIUM_COLUMNS.payload, description="payload of the event, of type json, jsonb, text or bytea"
    )


class Outbox(Section):
    """The outbox table and its columns, and messages beside it or in its place."""

    table: str = Field(
        "public.outbox",
        description="name of the outbox table, as schema.table; double quotes around a name that contains a dot; empty:"
        " no table, only messages",
    )
    renamed_to: str | None = Field(
        None,
        description="name that the table gets while the publisher runs, when a new one takes its name: rows of both"
        " names are events as long as they are of the one table; see split.md",
    )
    messages: Prefix | None = Field(
        None,
        description="prefix of logical messages that are events, by pg_logical_emit_message; without table, if there is"
        " no table of the default name, they are the only events",
    )
    columns: ColumnNames = Field(default_factory=ColumnNames, description="column for each part of an event")
    headers: list[str] = Field(
        [],
        description="columns to send as record headers of the same name, or of another as column:name; double quotes"
        " around the name of a column that contains a colon",
    )
    header_format: Literal["postgres", "iso"] = Field(
        "postgres",
        description="values of these headers: PostgreSQL's text without nulls, or ISO 8601 for timestamps, base64 for"
        " bytea, and a header without a value for null",
    )
    published: Literal["delete", "mark"] = Field(
        "delete",
        description="rows that Kafka has confirmed, with polling: delete them, or leave them to outbox purge",
    )
    tombstones: bool = Field(
        False, description="publish a null or blank payload as a tombstone; otherwise it is a poison event"
    )

    @model_validator(mode="after")
    def _named(self) -> "Outbox":
        problems = []
        try:
            if self.table or self.messages is None:
                qualified(self.table)
        except ValueError as error:
            problems.append(f"table: {error}")
        problems += [f"renamed_to: {problem}" for problem in self._wrong_new_name()]
        problems += [f"headers: {problem}" for problem in self._wrong_headers()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _wrong_new_name(self) -> Iterator[str]:
        if self.renamed_to is None:
            return
        if not self.table:
            yield "there is no table to rename"
            return
        try:
            table = qualified(self.table)
        except ValueError:
            return  # that is reported already
        try:
            if qualified(self.renamed_to, table[0]) == table:
                yield f"table has the name {self.renamed_to!r} already"
        except ValueError as error:
            yield str(error)

    def _wrong_headers(self) -> Iterator[str]:
        names = set[str]()
        for text in self.headers:
            try:
                column, name = Header.parse(text)
            except ValueError as error:
                yield str(error)
                continue
            if is_own(name):
                yield f"remove {text!r}: the publisher sets a header of this name itself"
            elif name != column and name.startswith(CLOUD_EVENTS):
                yield f"remove {text!r}: names that begin with {CLOUD_EVENTS} are those of CloudEvents"
            elif name in names:
                yield f"remove the second {name!r}"
            names.add(name)

    @property
    def header_columns(self) -> tuple[Header, ...]:
        """Return the columns of headers with the headers' names."""
        return tuple([Header.parse(text) for text in self.headers])

    @property
    def parts(self) -> Columns:
        """Return the columns as the `Columns` that `cdc.outbox` takes."""
        return Columns(**self.columns.model_dump())

    @property
    def qualified_name(self) -> tuple[str, str]:
        """Return (schema, table); the schema defaults to `public`. Both are empty where there is to be no table."""
        return qualified(self.table) if self.table else ("", "")

    @property
    def new_name(self) -> tuple[str, str] | None:
        """Return (schema, table) of `renamed_to`, which is in the schema of the table if it names none."""
        return qualified(self.renamed_to, self.qualified_name[0]) if self.renamed_to else None

    @property
    def needs_table(self) -> bool:
        """Return whether there must be a table: one is named, or there are no messages."""
        return self.messages is None or ("table" in self.model_fields_set and bool(self.table))


class Topics(Section):
    """Names of topics, and the settings of topics that the publisher creates."""

    name: Template = Field(
        "outbox.event.{aggregatetype}", description="topic of an event, as a template of the row's columns"
    )
    map: dict[str, Topic] = Field(
        {}, description="topics of single aggregate types, by the value of the aggregate column; others take name"
    )
    dead_letter: Topic = Field("cdc.dead-letter", description="topic for dead letters, created by outbox init or start")
    positions: Topic = Field(
        "cdc.positions", description="compacted topic that records the state of slots, created by outbox init or start"
    )
    create: bool = Field(False, description="create missing event topics; otherwise log a warning and wait for them")
    partitions: int = Field(-1, ge=-1, description="partitions of created topics; -1 means the broker's default")
    replication_factor: int = Field(
        -1, ge=-1, description="replication factor of created topics; -1 means the broker's default"
    )
    config: dict[str, str | int | float | bool] = Field({}, description="topic configuration of created event topics")
    replication: Literal["warn", "refuse", "any"] = Field(
        "warn", description="action for topics with fewer than 3 replicas or min.insync.replicas below 2"
    )

    @model_validator(mode="after")
    def _apart(self) -> "Topics":
        own = {self.dead_letter: "dead_letter", self.positions: "positions"}
        problems = [
            f"map: {aggregate!r} has the topic of {own[topic]}, {topic!r}"
            for aggregate, topic in self.map.items()
            if topic in own
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Avro(Section):
    """Avro contracts, and the framing of record values."""

    source: Literal["folder", "registry"] = Field("folder", description="source of contracts")
    schemas: Path = Field(Path("schemas"), description="folder with one .avsc file per event type")
    framing: Literal["single-object", "confluent"] = Field(
        "single-object",
        description="prefix of the Avro body: schema fingerprint, or magic byte and schema id; confluent is the default"
        " with a registry",
    )
    subject: Literal["topic-record-name", "record-name", "topic-name"] = Field(
        "topic-record-name", description="subject name strategy for confluent framing"
    )
    types: dict[str, str] = Field({}, description="record name of each event type whose name differs from it")
    unknown_types: Literal["reject", "envelope"] = Field(
        "reject",
        description="handling of events without a contract: poison event, or wrapped in the contract cdc.Envelope",
    )
    unknown_fields: Literal["reject", "ignore"] = Field(
        "reject", description="handling of fields that are not in the contract: poison event, or omit the field"
    )
    bytes: Literal["avro-json", "base64"] = Field(
        "avro-json",
        description="representation of bytes and fixed in JSON text; Jackson, Go, .NET and protobuf write base64, which"
        " avro-json would send as the bytes of its characters",
    )
    timestamps: Literal["exact", "truncate"] = Field(
        "exact",
        description="handling of times with more digits than the contract's unit has: poison event, or drop the digits",
    )
    bytea: Literal["framed", "body"] = Field(
        "framed", description="content of bytea payloads: framed Avro, or a body to frame"
    )

    @property
    def rules(self) -> Rules:
        """Return how JSON payloads are read."""
        return Rules(self.unknown_fields, self.bytes, self.timestamps)


Value = Literal["avro", "json", "text"]

COMMIT: Final = "commit"
"""The time of records that is that of the commit, in place of a column."""


class Record(Section):
    """Keys and values of records."""

    key: Form = Field(
        "text",
        description="form of keys: the column's text, or what Kafka Connect's JsonConverter writes without or with its"
        " schema",
    )
    key_optional: bool | None = Field(
        None,
        description="whether the schema in a key says that keys may be null, with json-schema; unset means whether the"
        " column may be null",
    )
    value: Value = Field(
        "avro",
        description="values of records: Avro by contract, JSON by contract, or the text of the payload column, which"
        " needs no contract; bytea passes unchanged",
    )
    values: dict[str, Value] = Field({}, description="value of each event type whose records differ from that")
    check: bool = Field(
        False,
        description="with text, reject payloads that do not match the contract of their event type, if it has one",
    )
    longs: Literal["number", "string"] = Field(
        "number", description="form of long in json; string for readers that round numbers, as JavaScript does"
    )
    decimals: Literal["string", "number"] = Field("string", description="form of decimal in json")
    content_type: bool = Field(
        False, description="send the header content-type on Avro records too; json and text records always have it"
    )
    timestamp: Identifier = Field(
        COMMIT,
        description="time of records: commit, or a column of type timestamptz, timestamp (in UTC) or bigint"
        " (milliseconds); where it is null, the time of the commit",
    )

    @model_validator(mode="after")
    def _coherent(self) -> "Record":
        if self.key_optional is not None and self.key != "json-schema":
            raise ValueError('key_optional needs key = "json-schema"')
        return self

    @property
    def time_column(self) -> str | None:
        """Return the column with the time of records; None for the time of the commit."""
        return None if self.timestamp == COMMIT else self.timestamp

    @property
    def form(self) -> JsonForm:
        """Return how JSON is written."""
        return JsonForm(self.longs, self.decimals)

    @property
    def needs_contracts(self) -> bool:
        """Whether any event type may have a contract that is used."""
        return self.check or {self.value, *self.values.values()} != {"text"}

    def of(self, event_type: str) -> Value:
        """Return the kind of an event type's values."""
        return self.values.get(event_type, self.value)


class SchemaRegistry(Section):
    """Connection to a Confluent-compatible Schema Registry."""

    url: RegistryUrl | None = Field(None, description="URL of the registry; separate the URLs of one cluster by commas")
    subjects: list[str] = Field(
        [],
        description='subjects to read with [avro] source = "registry", as patterns such as "outbox.event.*"; by default'
        " all, passing over unusable ones of others",
    )
    auto_register: bool = Field(False, description="register contracts at start; otherwise use schema register")
    username: str | None = Field(None, description="user name for basic authentication")
    password: str | None = Field(None, description="password for basic authentication")
    token: str | None = Field(None, description="token for bearer authentication")
    ssl_ca: str | None = Field(None, description="file with trusted CA certificates; default: Mozilla's")
    ssl_certificate: str | None = Field(None, description="file with the client certificate")
    ssl_key: str | None = Field(None, description="file with the private key, if it is not in ssl_certificate")
    ssl_key_password: str | None = Field(None, description="password of the private key")
    timeout_seconds: float = Field(10, gt=0, description="timeout of one request, and how long to retry a failed one")

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
    """Delivery guarantee, poison events and time limits."""

    guarantee: Literal["at-least-once", "exactly-once"] = Field("at-least-once", description="delivery guarantee")
    on_poison: Literal["stop", "dead-letter"] = Field(
        "stop",
        description="handling of poison events: stop before the first one, or send each to the dead-letter topic",
    )
    transaction_ms: int = Field(
        100, gt=0, le=10_000, description="duration of a Kafka transaction in milliseconds, with exactly-once"
    )
    accelerator: Literal["auto", "native", "python"] = Field(
        "auto", description="implementation that encodes records; auto uses the native accelerator if it is installed"
    )
    on_slot_lost: Literal["stop", "recover"] = Field(
        "stop",
        description="handling of a lost slot: exit with code 1, or do what recover does, at most once an hour; see"
        " recovery.md",
    )
    sequence: bool = Field(False, description="number the records of each partition in the header cdc-sequence")
    kafka_code: list[
        Literal[
            "plugin.library.paths", "ssl.engine.location", "ssl.engine.id", "ssl.providers", "sasl.kerberos.kinit.cmd"
        ]
    ] = Field([], description="properties in [kafka] that may load libraries or run commands; all others are refused")
    startup_seconds: float = Field(
        15, ge=0, description="how long start tries to reach the servers before it exits with code 75"
    )
    drain_seconds: float = Field(
        25,
        ge=0,
        description="how long to wait at shutdown for Kafka to confirm sent records; after that, the exit code is 75",
    )


class Http(Section):
    """Health, metrics and status over HTTP."""

    listen: Address | None = Field(
        None, description="host:port to listen on, such as 127.0.0.1:8080; unset disables the endpoint"
    )
    linger_seconds: float = Field(
        5, ge=0, description="how long the endpoint reports a fatal error before the process exits"
    )


class Fleet(Section):
    """A fleet of publishers, for `fleet start`: its file has this section, and its units have none."""

    name: FleetName = Field(
        "default", description="name of the fleet: its topic and its consumer group are cdc.fleet.NAME"
    )
    secrets: Path | None = Field(
        None, description="folder with a folder per unit, whose files CDC_SECTION__NAME hold settings of the unit"
    )
    session_seconds: float = Field(
        10,
        ge=1,
        le=1800,
        description="how long Kafka waits for an instance before others take its units; brokers limit it by"
        " group.min.session.timeout.ms and group.max.session.timeout.ms",
    )

    @property
    def topic(self) -> str:
        """Return the name of the topic, which is that of the consumer group too."""
        return f"cdc.fleet.{self.name}"


class Tracing(Section):
    """Traces of events. OpenTelemetry's own environment variables set the exporter and its endpoint."""

    enabled: bool = Field(
        False,
        description="record an OpenTelemetry span for each event, from commit to confirmation; needs the extra otel",
    )


class Settings(Section):
    """All settings by section; names are as in the settings file and, in upper case, in environment variables."""

    postgres: Postgres = Field(default_factory=Postgres)
    outbox: Outbox = Field(default_factory=Outbox)
    topics: Topics = Field(default_factory=Topics)
    kafka: dict[str, librdkafka.Value] = Field(
        {}, description="any librdkafka property that does not break the delivery guarantee"
    )
    record: Record = Field(default_factory=Record)
    avro: Avro = Field(default_factory=Avro)
    schema_registry: SchemaRegistry = Field(default_factory=SchemaRegistry)
    delivery: Delivery = Field(default_factory=Delivery)
    http: Http = Field(default_factory=Http)
    tracing: Tracing = Field(default_factory=Tracing)
    fleet: Fleet = Field(default_factory=Fleet)

    @property
    def template(self) -> TopicTemplate:
        """Return what determines the topics of events."""
        return TopicTemplate(self.topics.name, self.topics.map, self.outbox.columns.aggregate)

    def read_as_text(self, present: Sequence[str]) -> list[str]:
        """Return the columns of which events need the text or the bytes, of a table with these columns."""
        return self.outbox.parts.needed(present, self.template, self.outbox.header_columns)

    def needed(self, present: Sequence[str]) -> list[str]:
        """Return the columns that events need, of a table with these columns."""
        column = self.record.time_column
        return list(dict.fromkeys([*self.read_as_text(present), *([column] if column else [])]))

    @model_validator(mode="after")
    def _available(self) -> "Settings":
        """Raise ValueError for settings that need a registry or a slot when there is to be none."""
        problems = [*self._needing_a_slot()] if self.postgres.polls else []
        if self.schema_registry.url is None:
            needs_registry = {'framing = "confluent"': self.avro.framing == "confluent"}
            needs_registry['source = "registry"'] = self.avro.source == "registry"
            problems += [
                f"[avro] {name} needs [schema_registry] url" for name, given in needs_registry.items() if given
            ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _needing_a_slot(self) -> Iterator[str]:
        polling = '[postgres] source = "polling"'
        if self.outbox.messages is not None:
            yield f"[outbox] messages needs a slot: they are in the WAL only; remove it, or {polling}"
        if self.outbox.renamed_to is not None:
            yield f"[outbox] renamed_to needs a slot: remove it, or {polling}"
        if not self.outbox.table:
            yield f'{polling} needs [outbox] table: set it, or [postgres] source = "slot"'
        if self.delivery.on_slot_lost == "recover":
            yield f'[delivery] on_slot_lost = "recover" needs a slot: remove it, or {polling}'


def require(settings: Settings, *, postgres: bool = True, kafka: bool = True) -> Settings:
    """Return `settings` unchanged. Raises ConfigError if a required setting is missing."""
    required = [
        ("[postgres] dsn", "CDC_POSTGRES__DSN", not postgres or settings.postgres.dsn),
        ('[kafka] "bootstrap.servers"', "CDC_KAFKA__BOOTSTRAP_SERVERS", not kafka or _bootstrap(settings)),
    ]
    missing = [
        f"{name} is required: set it in the settings file or as {env}" for name, env, value in required if not value
    ]
    if missing:
        raise ConfigError(*missing)
    return settings


def require_slot(settings: Settings, command: str, instead: str = "") -> Settings:
    """Return `settings` unchanged. Raises ConfigError if rows come from the table, for a command that needs a slot."""
    if settings.postgres.polls:
        hint = f"{instead}; " if instead else ""
        raise ConfigError(
            f'{command} needs a replication slot, and [postgres] source is "polling"',
            hint=f"{hint}for a slot of an earlier source, add --set postgres.source=slot before the command",
        )
    return settings


def _bootstrap(settings: Settings) -> bool:
    return bool(settings.kafka.get("bootstrap.servers") or settings.kafka.get("metadata.broker.list"))

"""Every setting, its type and its default. All of them are frozen; nothing else reads files or the environment."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cdc.errors import ConfigError
from cdc.kafka import properties
from cdc.outbox import DEBEZIUM_COLUMNS
from cdc.topics import TopicTemplate, is_topic_name

NOT_YET = "is not available in this version"


def _identifier(name: str) -> str:
    if not name or len(name.encode()) > 63:
        raise ValueError("a PostgreSQL name has 1 to 63 bytes")
    return name


def _slot_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,63}", name):
        raise ValueError("a slot's name has 1 to 63 lower-case letters, digits and underscores")
    return name


def _topic_name(name: str) -> str:
    if not is_topic_name(name):
        raise ValueError("a topic's name has 1 to 249 letters, digits, '.', '_' and '-'")
    return name


def _template(template: str) -> str:
    try:
        TopicTemplate(template)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return template


Identifier = Annotated[str, AfterValidator(_identifier)]
Topic = Annotated[str, AfterValidator(_topic_name)]


class Section(BaseModel):
    """One table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Postgres(Section):
    """Where the outbox is."""

    dsn: str = Field("", description="connection string: a URL or key=value pairs, directly to the server (required)")
    slot: Annotated[str, AfterValidator(_slot_name)] = Field("cdc_publisher", description="replication slot")
    publication: Identifier = Field("cdc_publisher", description="publication that holds the outbox")


class ColumnNames(Section):
    """The table's column for each part of an event."""

    id: Identifier = DEBEZIUM_COLUMNS.id
    key: Identifier = DEBEZIUM_COLUMNS.key
    aggregate: Identifier = DEBEZIUM_COLUMNS.aggregate
    type: Identifier = DEBEZIUM_COLUMNS.type
    payload: Identifier = DEBEZIUM_COLUMNS.payload


class Outbox(Section):
    """Which table, and what its columns mean."""

    table: str = Field("public.outbox", description="schema.table")
    columns: ColumnNames = Field(default_factory=ColumnNames, description="columns by their part in an event")
    headers: list[Identifier] = Field([], description="columns that become record headers of the same name")

    @model_validator(mode="after")
    def _qualified(self) -> "Outbox":
        if not all(self.qualified_name):
            raise ValueError(f"table: {self.table!r} is not schema.table")
        return self

    @property
    def qualified_name(self) -> tuple[str, str]:
        """(schema, table); the schema is `public` when none is given."""
        schema, dot, table = self.table.rpartition(".")
        return (schema if dot else "public"), table


class Topics(Section):
    """Names of topics, and whether the publisher makes them."""

    name: Annotated[str, AfterValidator(_template)] = Field(
        "outbox.event.{aggregatetype}", description="topic of an event: a template over the row's columns"
    )
    dead_letter: Topic = Field("cdc.dead-letter", description="topic of events that cannot be encoded")
    positions: Topic = Field("cdc.positions", description="compacted topic of positions, for exactly-once")
    create: bool = Field(False, description="create missing event topics")
    partitions: int = Field(-1, ge=-1, description="of topics that are created; -1: the broker's default")
    replication_factor: int = Field(-1, ge=-1, description="of topics that are created; -1: the broker's default")
    config: dict[str, str | int | float | bool] = Field({}, description="settings of event topics that are created")


class Avro(Section):
    """Contracts and the framing of values."""

    schemas: Path = Field(Path("schemas"), description="folder of .avsc files, one per event type")
    framing: Literal["single-object", "confluent"] = Field("single-object", description="what precedes the Avro body")
    subject: Literal["topic-record-name", "record-name", "topic-name"] = Field(
        "topic-record-name", description="how subjects are named, in confluent framing"
    )
    types: dict[str, str] = Field({}, description="record name of event types that are named otherwise")


class SchemaRegistry(Section):
    """Confluent-compatible Schema Registry."""

    url: str | None = Field(None, description="address of the registry")
    auto_register: bool = Field(False, description="let start register contracts")


class Delivery(Section):
    """What is promised, and how long to try."""

    guarantee: Literal["at-least-once", "exactly-once"] = Field("at-least-once", description="delivery guarantee")
    on_poison: Literal["stop", "dead-letter"] = Field("stop", description="what to do with an event that does not fit")
    startup_seconds: float = Field(
        15, ge=0, description="how long start tries to reach the servers for the first time before it exits with 75"
    )
    drain_seconds: float = Field(25, ge=0, description="how long a stop waits for Kafka to confirm what was sent")


class Http(Section):
    """Health, metrics and status over HTTP."""

    listen: str | None = Field(None, description="host:port")


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

    @model_validator(mode="after")
    def _available(self) -> "Settings":
        """Refuse what is planned but not there: to accept it in silence would be a lie."""
        wanted: list[tuple[str, bool]] = [
            ('[avro] framing = "confluent"', self.avro.framing == "confluent"),
            ("[schema_registry] url", self.schema_registry.url is not None),
            ('[delivery] guarantee = "exactly-once"', self.delivery.guarantee == "exactly-once"),
            ('[delivery] on_poison = "dead-letter"', self.delivery.on_poison == "dead-letter"),
            ("[http] listen", self.http.listen is not None),
        ]
        missing = [f"{name} {NOT_YET}" for name, is_wanted in wanted if is_wanted]
        if missing:
            raise ValueError("; ".join(missing))
        return self


def require(settings: Settings, *, kafka: bool = True) -> Settings:
    """The same settings. Raises ConfigError when one that has no default is missing."""
    required = [
        ("[postgres] dsn", "CDC_POSTGRES__DSN", settings.postgres.dsn),
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


_SECRET = re.compile(r"password|passphrase|passwd|secret|token|credential|\.pem$|jaas", re.IGNORECASE)
MASK = "********"


def masked(name: str, value: Any) -> Any:
    """The value as it may be shown; `name` is the last part of the setting's name."""
    if name == "dsn":
        return mask_dsn(str(value))
    return MASK if _SECRET.search(name) and value not in (None, "") else value


_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/?#]*)(?P<password>:.*)?@)?"
    r"(?P<location>[^@/?#]*(?:/[^@?#]*)?)(?P<parameters>\?[^@]*)?"
)
_PARAMETER = re.compile(r"([?&])(\w+)=([^&]*)")
_PAIR = re.compile(r"(\s*)(\w+)(\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)")


def mask_dsn(dsn: str) -> str:
    """A connection string without its passwords.

    What is not written by the book is masked as a whole: a password that was not quoted may stand in any part.
    """
    url = _URL.fullmatch(dsn)
    if url and "password=" not in (url["password"] or ""):
        user = "" if url["user"] is None else f"{url['user']}{':' + MASK if url['password'] else ''}@"
        parameters = _PARAMETER.sub(
            lambda pair: f"{pair[1]}{pair[2]}={_shown(pair[2], pair[3])}", url["parameters"] or ""
        )
        return f"{url['scheme']}{user}{url['location']}{parameters}"
    if url or _PAIR.sub("", dsn).strip():
        return MASK
    return _PAIR.sub(lambda pair: f"{pair[1]}{pair[2]}{pair[3]}{_shown(pair[2], pair[4])}", dsn)


def _shown(name: str, value: str) -> str:
    return MASK if _SECRET.search(name) else value

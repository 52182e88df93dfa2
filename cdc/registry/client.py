"""The registry, through Confluent's own client: with bounded retries, and only ids whose schema was verified.

<https://docs.confluent.io/platform/current/schema-registry/develop/api.html>
"""

import json
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    SchemaRegistryError,
)

from cdc.avro import compatibility, files
from cdc.backoff import Backoff
from cdc.config.settings import SchemaRegistry
from cdc.errors import CdcError, ConfigError
from cdc.registry import errors
from cdc.registry.canonical import same_schema
from cdc.registry.errors import RegistryError, RegistryUnavailable

ATTEMPTS: Final = 3
_SHOWN: Final = 3  # differences
_LARGEST_ID: Final = 2**31 - 1  # four bytes with a sign, as Java reads them

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reference:
    """A named type of a schema that is a subject of its own."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema as the registry has it."""

    subject: str
    version: int
    id: int
    text: str
    kind: str = "AVRO"  # or JSON, PROTOBUF


class Registry:
    """A registry. All but `close` raise RegistryError or RegistryUnavailable; any thread may call.

    A call repeats what may pass by itself, up to ATTEMPTS times, and starts no attempt after `timeout_seconds`.
    Raises ConfigError when the settings cannot be used.
    """

    def __init__(self, settings: SchemaRegistry) -> None:
        self.url, user_info = _without_credentials(settings)
        self._timeout_seconds = settings.timeout_seconds
        self._closed = threading.Event()
        _quiet()
        _readable(settings)
        try:
            self._client = SchemaRegistryClient(_configuration(settings, self.url, user_info))
        except OSError as error:
            raise ConfigError(f"[schema_registry] ssl_ca, ssl_certificate or ssl_key: {error}") from None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"[schema_registry] {error}") from None

    def close(self) -> None:
        """Close the connection; a call that waits for a retry gives up."""
        self._closed.set()
        self._client.__exit__(None, None, None)  # what later versions of the client call close()

    def lookup(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered | None:
        """Return the schema as it is registered under a subject, or None."""
        schema = _schema(text, references)
        found = self._known(f"looking up subject {subject}", lambda: self._client.lookup_schema(subject, schema))
        return None if found is None else self._verified(subject, found.version, found.schema_id, text)

    def register(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered:
        """Register a schema; one that is registered already is not changed."""
        schema = _schema(text, references)
        try:
            self._call(f"registering subject {subject}", lambda: self._client.register_schema(subject, schema))
        except RegistryError as error:
            raise self._incompatible(subject, text, error) if error.status == 409 else error from None
        # The answer has only the id; a look-up returns the version, and shows that the schema is visible to others.
        registered = self.lookup(subject, text, references)
        if registered is None:
            raise RegistryUnavailable(
                f"registry {self.url}, registering subject {subject}: the registered schema cannot be found",
                hint="replicas of the registry may lag: try again",
            )
        return registered

    def problems(self, subject: str, text: str, references: Sequence[Reference] = ()) -> list[str]:
        """Return why the registry would refuse a schema, in its words; nothing for a new subject."""
        doing = f"checking compatibility with subject {subject}"
        body = _schema(text, references).to_dict()
        path = f"compatibility/subjects/{quote(subject, safe='')}/versions"
        # The client's own methods throw the messages away.
        post = self._client._rest_client.post
        try:
            answer = self._known(doing, lambda: post(f"{path}?verbose=true", body=body))
        except RegistryError as error:
            if error.status == 409:
                return [str(self._incompatible(subject, text, error))]
            if error.status not in (404, 405):
                raise
            # Registries that cannot check all versions that the level asks for.
            answer = self._known(doing, lambda: post(f"{path}/latest?verbose=true", body=body))
        if answer is None:
            return []
        if not isinstance(answer, dict) or not isinstance(answer.get("is_compatible"), bool):
            raise errors.garbled(f"is_compatible is not in {answer!r}", doing, self.url)
        if answer["is_compatible"]:
            return []
        messages = [str(message) for message in answer.get("messages") or () if str(message).strip()]
        unexplained = errors.incompatible(doing, self.url)
        return messages or [str(self._incompatible(subject, text, unexplained))]

    def latest(self, subject: str) -> Registered | None:
        """Return the newest version of a subject, or None."""
        doing = f"reading subject {subject}"
        found = self._known(doing, lambda: self._client.get_version(subject, "latest"))
        if found is None:
            return None
        return Registered(
            subject,
            self._number(found.version, "version", doing),
            self._number(found.schema_id, "id", doing),
            self._text(found.schema, doing),
            found.schema.schema_type or "AVRO",
        )

    def by_id(self, id: int) -> str:  # noqa: A002 - as the registry calls it
        """Return the text of the schema with this id."""
        doing = f"reading schema {id}"
        return self._text(self._call(doing, lambda: self._client.get_schema(id)), doing)

    def with_references(self, id: int) -> tuple[str, list[str]]:  # noqa: A002 - as the registry calls it
        """Return the text of a schema, and of all schemas that it references, each after those that it needs itself."""
        doing = f"reading schema {id}"
        named: dict[str, str] = {}

        def visit(schema: Schema) -> None:
            for each in schema.references or ():
                name, subject, version = each.name or "", each.subject or "", each.version or 0
                if name not in named:
                    other = self._call(doing, partial(self._client.get_version, subject, version)).schema
                    visit(other)
                    named[name] = self._text(other, doing)

        schema = self._call(doing, lambda: self._client.get_schema(id))
        visit(schema)
        return self._text(schema, doing), list(named.values())

    def subjects(self) -> list[str]:
        """Return all subjects."""
        doing = "listing subjects"
        names = self._call(doing, self._client.get_subjects)
        if not isinstance(names, list):
            raise errors.garbled(f"{names!r} is not a list", doing, self.url)
        return [str(name) for name in names]

    def _verified(self, subject: str, version: object, schema_id: object, text: str) -> Registered:
        """Verify that the schema of an id is the requested one: consumers have only the id (fault D3)."""
        doing = f"looking up subject {subject}"
        number = self._number(schema_id, "id", doing)
        try:
            found = self.by_id(number)
        except RegistryError as error:
            if error.code != errors.SCHEMA_NOT_FOUND:
                raise
            raise RegistryUnavailable(
                f"registry {self.url}, {doing}: answered id {number}, but does not know that id",
                hint="replicas of the registry may lag",
            ) from None
        if not same_schema(text, found):
            raise RegistryError(
                f"registry {self.url}, {doing}: answered id {number}, but the schema of that id is not the contract",
                hint="compare `cdc-publisher schema show` with what the registry has under this id",
            )
        return Registered(subject, self._number(version, "version", doing), number, found)

    def _incompatible(self, subject: str, text: str, error: RegistryError) -> RegistryError:
        """Add to a refusal what is registered and, where the registry gives no reason, the differences."""
        try:
            latest = self.latest(subject)
        except CdcError:
            latest = None
        if latest is None:
            return error
        message = f"{error.message}; registered is version {latest.version} with id {latest.id}"
        if errors.NO_REASON in error.message:
            message = "; ".join([message, *_differences(text, latest)[:_SHOWN]])
        return RegistryError(message, hint=error.hint, status=error.status, code=error.code)

    def _text(self, schema: Schema, doing: str) -> str:
        if not isinstance(schema.schema_str, str):
            raise errors.garbled("there is no schema in it", doing, self.url)
        return schema.schema_str

    def _number(self, value: object, name: str, doing: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_ID:
            raise errors.garbled(f"{value!r} is not {'an' if name == 'id' else 'a'} {name}", doing, self.url)
        return value

    def _known(self, doing: str, request: Callable[[], T]) -> T | None:
        """Return the answer, or None when subject, version or schema do not exist."""
        try:
            return self._call(doing, request)
        except RegistryError as error:
            if error.code in errors.UNKNOWN:
                return None
            raise

    def _call(self, doing: str, request: Callable[[], T]) -> T:
        give_up_at = time.monotonic() + self._timeout_seconds
        backoff = Backoff(random.random)
        for attempt in range(1, ATTEMPTS + 1):
            # The client caches all answers, including wrong ids and incomplete ones; callers keep verified ones.
            self._client.clear_caches()
            try:
                return self._once(doing, request)
            except RegistryUnavailable:
                pause = backoff.pause()
                late = time.monotonic() + pause >= give_up_at
                if attempt == ATTEMPTS or late or self._closed.wait(pause):
                    raise
        raise AssertionError  # pragma: no cover

    def _once(self, doing: str, request: Callable[[], T]) -> T:
        try:
            return request()
        except SchemaRegistryError as error:
            code = error.error_code if isinstance(error.error_code, int) else -1
            reason = str(error.error_message or "").strip() or errors.NO_REASON
            raise errors.answered(error.http_status_code, code, reason, doing, self.url) from None
        except json.JSONDecodeError as error:
            raise errors.garbled(f"not JSON: {error}", doing, self.url) from None
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise errors.garbled(f"{type(error).__name__} {error}", doing, self.url) from None
        except Exception as error:
            # The client passes on the errors of its HTTP library, which depends on its version.
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
                raise errors.distrusted(error, doing, self.url) from None
            raise errors.unreachable(error, doing, self.url) from None


def _schema(text: str, references: Sequence[Reference]) -> Schema:
    return Schema(text, "AVRO", [SchemaReference(each.name, each.subject, each.version) for each in references])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _differences(text: str, registered: Registered) -> list[str]:
    """Return what Avro's rules say against a schema; nothing if it needs types of other subjects."""
    try:
        old = f"version {registered.version}", json.loads(registered.text)
        return compatibility.check("FULL", json.loads(text), [old])
    except files.NO_SCHEMA:
        return []


def _without_credentials(settings: SchemaRegistry) -> tuple[str, str | None]:
    """Return the URL without credentials, and `username:password`: the HTTP library logs whole URLs."""
    if settings.url is None:
        raise ConfigError(
            "[schema_registry] url is required: set it in the settings file, or as CDC_SCHEMA_REGISTRY__URL"
        )
    user_info = None if settings.username is None else f"{settings.username}:{settings.password or ''}"
    urls = []
    for text in settings.url.split(","):
        url = urlsplit(text.strip())
        if url.username is not None and user_info is None:
            user_info = f"{unquote(url.username)}:{unquote(url.password or '')}"
        urls.append(urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2])))
    return ",".join(urls), user_info


def _readable(settings: SchemaRegistry) -> None:
    """Check that the files exist, as OpenSSL does not report which one it could not read. Raises ConfigError."""
    names = ("ssl_ca", "ssl_certificate", "ssl_key")
    files = {name: file for name in names if (file := getattr(settings, name))}
    missing = [
        f"[schema_registry] {name}: {file} does not exist" for name, file in files.items() if not Path(file).exists()
    ]
    if missing:
        raise ConfigError(*missing)


def _configuration(settings: SchemaRegistry, url: str, user_info: str | None) -> dict[str, object]:
    given: dict[str, object] = {
        "url": url,
        "timeout": settings.timeout_seconds,
        "max.retries": 0,  # its pauses cannot be cut short, and it does not repeat after half an answer
        "basic.auth.user.info": user_info,
        "ssl.ca.location": settings.ssl_ca,
        "ssl.certificate.location": settings.ssl_certificate,
        "ssl.key.location": settings.ssl_key,
        "ssl.key.password": settings.ssl_key_password,
    }
    if settings.token:
        given |= {
            "bearer.auth.credentials.source": "STATIC_TOKEN",
            "bearer.auth.token": settings.token,
            "bearer.auth.logical.cluster": "",  # the client demands one; only Confluent Cloud reads it
        }
    return {name: value for name, value in given.items() if value is not None}


def _quiet() -> None:
    """Silence the HTTP library, which logs each request with up to ten lines."""
    for library in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(library).setLevel(logging.WARNING)

"""Events passed to handlers, and parsing of the publisher's headers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, cast

from cdc.records.headers import ID, POSITION, SEQUENCE, TYPE, Pairs, Position, headers_of, sequence

HeaderValue = str | bytes | None
Headers = Iterable[tuple[str, HeaderValue]] | Mapping[str, HeaderValue] | None
Decode = Callable[[bytes | None, Pairs], Any]
"""Decodes a value with its headers; `cdc.consumer.Decoder` is one."""

_UNREAD: Final = object()


class PublisherHeaders(NamedTuple):
    """The publisher's headers of a record; None for headers that are missing or malformed."""

    id: str | None
    type: str | None
    position: Position | None
    sequence: int | None
    names: frozenset[str]  # of all headers

    @classmethod
    def of(cls, headers: Headers) -> "PublisherHeaders":
        """Parse headers. Never raises, even for headers of another program."""
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        first: dict[str, HeaderValue] = {}
        for name, value in pairs:
            first.setdefault(name, value)
        return cls(
            _text(first.get(ID)) or None,
            _text(first.get(TYPE)) or None,
            Position.parse(_text(first.get(POSITION)) or ""),
            sequence(_text(first.get(SEQUENCE)) or ""),
            frozenset(first),
        )


def _text(value: HeaderValue) -> str | None:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


class Message(Protocol):
    """The interface of `confluent_kafka.Message`."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...


@dataclass(eq=False, slots=True)
class Event:
    """One record; `id`, `type`, `position` and `sequence` are None if its headers do not have them."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Commit time of the transaction, in milliseconds since 1970."""
    key: bytes | None
    raw: bytes | None
    """The encoded value; None for a tombstone."""
    headers: Pairs
    id: str | None
    type: str | None
    position: Position | None
    sequence: int | None
    attempt: int = 1
    """Number of this attempt to handle the event in this process, from 1."""
    _decode: Decode | None = field(default=None, repr=False)
    _value: Any = field(default=_UNREAD, repr=False)

    @classmethod
    def of(cls, message: Message, decoder: Decode | None = None) -> "Event":
        """Create an event from a confluent-kafka message, for custom loops. Never raises for its content."""
        headers = headers_of(message)
        parsed = PublisherHeaders.of(headers)
        return cls(
            topic=message.topic() or "",
            partition=message.partition() or 0,
            offset=message.offset() or 0,
            timestamp=message.timestamp()[1],
            key=message.key(),
            raw=message.value(),
            headers=headers,
            id=parsed.id,
            type=parsed.type,
            position=parsed.position,
            sequence=parsed.sequence,
            _decode=decoder,
        )

    @property
    def value(self) -> Any:
        """The value, decoded at first access; None for a tombstone; `raw` without a decoder.

        Raises Undecodable and other exceptions of the decoder.
        """
        if self._value is _UNREAD:
            decodes = self._decode is not None and self.raw is not None
            self._value = cast(Decode, self._decode)(self.raw, self.headers) if decodes else self.raw
        return self._value

    def header(self, name: str) -> bytes | None:
        """Return the first header with this name, or None."""
        return next((value for found, value in self.headers if found == name), None)

    def __str__(self) -> str:
        return f"event {self.id or '(no id)'} at {self.topic}[{self.partition}]@{self.offset}"

"""Records as a consumer sees them: headers to values, and the event that a handler is given."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, cast

from cdc.records.headers import ID, POSITION, SEQUENCE, TYPE, Pairs, Position, headers_of, sequence

HeaderValue = str | bytes | None
Headers = Iterable[tuple[str, HeaderValue]] | Mapping[str, HeaderValue] | None
Decode = Callable[[bytes | None, Pairs], Any]
"""From value and headers to what the handler wants; `cdc.consumer.Decoder` is one."""

_UNREAD: Final = object()


class Marks(NamedTuple):
    """What the publisher wrote into the headers of a record; None for what is not there or cannot be read."""

    id: str | None
    type: str | None
    position: Position | None
    sequence: int | None
    names: frozenset[str]  # of all headers

    @classmethod
    def of(cls, headers: Headers) -> "Marks":
        """Read them. Never raises for what another program wrote."""
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
    """A record as confluent-kafka hands it over."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...


@dataclass(eq=False, slots=True)
class Event:
    """One record, for a handler; `id`, `type`, `position` and `sequence` are None where it does not have them."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since 1970: when the transaction committed."""
    key: bytes | None
    raw: bytes | None
    """The value as it is in Kafka; None for a tombstone."""
    headers: Pairs
    id: str | None
    type: str | None
    position: Position | None
    sequence: int | None
    attempt: int = 1
    """How often the handler has been given this event, this time included; by this process."""
    _decode: Decode | None = field(default=None, repr=False)
    _value: Any = field(default=_UNREAD, repr=False)

    @classmethod
    def of(cls, message: Message, decoder: Decode | None = None) -> "Event":
        """A message of confluent-kafka as an event, for loops of your own. Never raises for what is in it."""
        headers = headers_of(message)
        marks = Marks.of(headers)
        return cls(
            topic=message.topic() or "",
            partition=message.partition() or 0,
            offset=message.offset() or 0,
            timestamp=message.timestamp()[1],
            key=message.key(),
            raw=message.value(),
            headers=headers,
            id=marks.id,
            type=marks.type,
            position=marks.position,
            sequence=marks.sequence,
            _decode=decoder,
        )

    @property
    def value(self) -> Any:
        """The decoded value, decoded when it is first asked for; None for a tombstone; `raw` when there is no decoder.

        Raises Undecodable, and what else the decoder raises.
        """
        if self._value is _UNREAD:
            decodes = self._decode is not None and self.raw is not None
            self._value = cast(Decode, self._decode)(self.raw, self.headers) if decodes else self.raw
        return self._value

    def header(self, name: str) -> bytes | None:
        """The first header of that name; None when there is none."""
        return next((value for found, value in self.headers if found == name), None)

    def __str__(self) -> str:
        return f"event {self.id or '(no id)'} at {self.topic}[{self.partition}]@{self.offset}"

"""The routes of events: topic, encoder and constant headers by event type and topic, found once for every path.

The general path asks the router for each event. The fast paths remember by the bytes of a row's cells what they were
taught of it, and nothing else remembers where an event goes.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol

from cdc.errors import CdcError, Everywhere, Unfit
from cdc.outbox.events import Event

MOST: Final = 10_000
"""Routes that are remembered: a topic template may hold a column of many values."""


class Encoder(Protocol):
    """Encodes by one contract, of which `name` is the full name."""

    name: str

    @property
    def plan(self) -> bytes | None:
        """The same for the native accelerator, if it can do the same: see `cdc.avro.compiled.plan`."""
        ...

    def encode(self, payload: bytes, header: bytes) -> bytes:
        """JSON text to `header` and Avro body. Raises ValueError when it does not fit."""
        ...

    def encode_value(self, value: object, header: bytes) -> bytes:
        """The same for a JSON value that is parsed already."""
        ...


class Encoders(Protocol):
    """Encoders by event type."""

    def get(self, event_type: str, /) -> Encoder | None:
        """The encoder, or None when the type has no contract."""
        ...

    def asks_again(self, event_type: str) -> bool:
        """Whether an unknown type is still being looked for, so that its event has to wait."""
        ...

    def missing(self, event_type: str) -> str:
        """Why there is none."""
        ...


class Framing(Protocol):
    """What stands before each Avro body."""

    def header(self, topic: str, contract: str) -> bytes | None:
        """The header for bodies of `contract` in `topic`; None while it is not known yet. Never waits."""
        ...

    def close(self) -> None:
        """Stop finding out."""
        ...


class Pending(Exception):
    """The id of the event's schema, or its topic, is not known yet: try the same event again.

    `waits_for` says who has to answer: `kafka` or `registry`.
    """

    def __init__(self, waits_for: Literal["kafka", "registry"] = "kafka") -> None:
        self.waits_for = waits_for
        super().__init__(waits_for)


class Route(NamedTuple):
    """What the records of one event type in one topic share."""

    topic: str
    type: str
    header: bytes = b""  # stands before each body
    encode: Callable[[bytes, bytes], bytes] | None = None  # payload and header to value; None: the payload is the body
    plan: bytes | None = None  # of the same encoder, for the native accelerator
    headers: tuple[tuple[str, str], ...] = ()  # constant, behind `cdc-position`
    enveloped: bool = False  # the whole event is encoded, not its payload alone: only the general path can


class Router:
    """Finds routes.

    `envelope` encodes events whose type has no contract; without it they are poison. `frame_bytea` says that bytea
    payloads are bare Avro bodies, to be framed like encoded ones.
    """

    def __init__(
        self, encoders: Encoders, framing: Framing, *, envelope: Encoder | None = None, frame_bytea: bool = False
    ) -> None:
        self.envelope = envelope
        self._encoders = encoders
        self._framing = framing
        self._frame_bytea = frame_bytea
        self._routes: dict[tuple[str, str, bool], Route] = {}

    def route(self, event: Event) -> Route:
        """Return the route of an event that has a payload.

        Raises Unfit when there is no contract or no schema id, Pending while it is not known, and the errors that
        concern every event.
        """
        key = event.type, event.topic, event.payload_is_avro
        route = self._routes.get(key)
        if route is None:
            route = self._find(event)
            if len(self._routes) >= MOST:
                self._routes.clear()
            self._routes[key] = route
        return route

    def _find(self, event: Event) -> Route:
        if event.payload_is_avro and not self._frame_bytea:
            return Route(event.topic, event.type)
        encoder = self._encoder(event.type)
        header = self._header(event, encoder)
        if event.payload_is_avro:
            return Route(event.topic, event.type, header)
        if encoder is self.envelope:
            return Route(event.topic, event.type, header, enveloped=True)
        return Route(event.topic, event.type, header, encoder.encode, encoder.plan)

    def _encoder(self, event_type: str) -> Encoder:
        encoder = self._encoders.get(event_type)
        if encoder is None:
            if self._encoders.asks_again(event_type):
                raise Pending("registry")
            encoder = self._encoders.get(event_type) or self.envelope
        if encoder is None:
            raise Unfit("contract-missing", self._encoders.missing(event_type))
        return encoder

    def _header(self, event: Event, encoder: Encoder) -> bytes:
        try:
            header = self._framing.header(event.topic, encoder.name)
        except Everywhere:
            raise
        except CdcError as error:
            # No consumer could read the record, so the event is poison, like one that does not fit.
            raise Unfit("schema-refused", f"{event.type} has no schema id: {error}") from None
        if header is None:
            raise Pending("registry")
        return header

"""The routes of events: topic, encoder and constant headers by event type and topic, found once for every path.

An event type has one kind of value (`[record] value`): Avro by contract, framed; JSON by contract; or the payload's
text. A bytea payload is a record's value already, for each kind.

The general path asks the router for each event. The fast paths remember by the bytes of a row's cells what they were
taught of it, and nothing else remembers where an event goes.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol

from cdc.errors import CdcError, Everywhere, Unfit
from cdc.outbox.events import Event
from cdc.records.headers import APPLICATION_JSON, AVRO_BINARY, CONTENT_TYPE, TEXT_PLAIN

MOST: Final = 10_000
"""Routes that are remembered: a topic template may hold a column of many values."""


Value = Literal["avro", "json", "text"]


class Values(Protocol):
    """The kinds of values, as `[record]` sets them."""

    @property
    def check(self) -> bool:
        """Whether text must match the contract of its event type, if there is one."""
        ...

    @property
    def content_type(self) -> bool:
        """Whether Avro records too have the header `content-type`."""
        ...

    def of(self, event_type: str) -> Value:
        """Return the kind of an event type's values."""
        ...


class _OnlyAvro:
    check = content_type = False

    def of(self, event_type: str) -> Value:  # noqa: ARG002 - all are the same
        return "avro"


AVRO: Final[Values] = _OnlyAvro()

_TEXT_PLAN: Final = b'{"form":"text","nodes":[]}'  # `text_value`, for the native accelerator


class Encoder(Protocol):
    """Encodes by one contract, of which `name` is the full name, to the kind of value that its event type has."""

    name: str

    @property
    def plan(self) -> bytes | None:
        """The same for the native accelerator, if it can do the same: see `cdc.avro.compiled.plan`."""
        ...

    def encode(self, payload: bytes, header: bytes) -> bytes:
        """JSON text to `header` and Avro body, or JSON. Raises ValueError when it does not fit."""
        ...

    def encode_value(self, value: object, header: bytes) -> bytes:
        """The same for a JSON value that is parsed already."""
        ...


class Encoders(Protocol):
    """Encoders by event type."""

    def get(self, event_type: str, /) -> Encoder | None:
        """The encoder, or None when the type has no contract. For text it only checks."""
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
    payloads of Avro types are bare Avro bodies, to be framed like encoded ones.
    """

    def __init__(
        self,
        encoders: Encoders,
        framing: Framing,
        *,
        envelope: Encoder | None = None,
        frame_bytea: bool = False,
        values: Values = AVRO,
    ) -> None:
        self.envelope = envelope
        self._values = values
        self._encoders = encoders
        self._framing = framing
        self._frame_bytea = frame_bytea
        self._routes: dict[tuple[str, str, str], Route] = {}

    def route(self, event: Event) -> Route:
        """Return the route of an event that has a payload.

        Raises Unfit when there is no contract or no schema id, Pending while it is not known, and the errors that
        concern every event.
        """
        key = event.type, event.topic, event.payload_kind
        route = self._routes.get(key)
        if route is None:
            route = self._find(event)
            if len(self._routes) >= MOST:
                self._routes.clear()
            self._routes[key] = route
        return route

    def without_value(self, event: Event) -> None:
        """Raise Unfit for an event without a payload, unless its type's values are text: its record has no value."""
        if self._values.of(event.type) != "text":
            hint = "set [outbox] tombstones = true to publish such rows without a value"
            raise Unfit("unreadable-row", f"is null; {hint}")

    def _find(self, event: Event) -> Route:
        value = self._values.of(event.type)
        route = Route(event.topic, event.type)
        if event.payload_is_avro and not (self._frame_bytea and value == "avro"):
            return route
        if value == "text":
            return self._text(route, event)
        encoder = self._encoder(event.type) or (self.envelope if value == "avro" else None)
        if encoder is None:
            raise Unfit("contract-missing", self._encoders.missing(event.type))
        if value == "json":
            headers = ((CONTENT_TYPE, APPLICATION_JSON),)
            return route._replace(encode=encoder.encode, plan=encoder.plan, headers=headers)
        route = route._replace(header=self._header(event, encoder))
        if event.payload_is_avro:
            return route
        if self._values.content_type:
            route = route._replace(headers=((CONTENT_TYPE, AVRO_BINARY),))
        if encoder is self.envelope:
            return route._replace(enveloped=True)
        return route._replace(encode=encoder.encode, plan=encoder.plan)

    def _text(self, route: Route, event: Event) -> Route:
        kind = TEXT_PLAIN if event.payload_kind == "text" else APPLICATION_JSON
        contract = self._encoder(event.type) if self._values.check else None
        route = route._replace(headers=((CONTENT_TYPE, kind),))
        if contract is None:
            return route._replace(encode=text_value, plan=_TEXT_PLAN)
        plan = contract.plan and b'{"form":"text",' + contract.plan.removeprefix(b"{")
        return route._replace(encode=partial(_checked_text, contract), plan=plan)

    def _encoder(self, event_type: str) -> Encoder | None:
        encoder = self._encoders.get(event_type)
        if encoder is None:
            if self._encoders.asks_again(event_type):
                raise Pending("registry")
            encoder = self._encoders.get(event_type)
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


def text_value(payload: bytes, header: bytes) -> bytes:
    """Return the payload. Raises Unfit if it is not UTF-8, as in a database of SQL_ASCII."""
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise Unfit("unreadable-row", f"is not UTF-8: {error}") from None
    return header + payload


def _checked_text(contract: Encoder, payload: bytes, header: bytes) -> bytes:
    """Return the payload, if it matches a contract. Raises ValueError."""
    text = text_value(payload, header)
    contract.encode(payload, b"")
    return text

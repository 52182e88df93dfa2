"""Decide whether a failure is the event's own: only such a failure may make the event a dead letter.

Failures that every event would have alike (connection, session, table, privileges, registry, contracts) wait, or end
the consumer. SQLSTATEs: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
"""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

import psycopg

from cdc.consumer.decoding import NoRegistry, Undecodable, UnknownId, UnusableSchema
from cdc.consumer.errors import InboxError, Rejected
from cdc.consumer.events import Event
from cdc.errors import CdcError, Temporary
from cdc.postgres.connection import classified

# Classes of errors about the values of a statement, or about the statement itself; and errors of these classes about
# objects and privileges, which all statements need.
_OF_VALUES: Final = frozenset({"20", "21", "22", "23", "25", "27", "2F", "38", "39", "42", "44", "54", "P0"})
_OF_OBJECTS: Final = frozenset({"42501", "42P01", "42703", "42704", "42P05", "42P10"})
_READ_ONLY: Final = "25006"  # another session may reach the new primary
_INTERNAL: Final = "XX000"  # permanent only where a value is too large


class Blame(Enum):
    """What a failure is due to, and so what the consumer does about it."""

    EVENT = auto()  # retry a limited number of times, then dead-letter the event
    EVENT_ALWAYS = auto()  # dead-letter the event at once
    OUTAGE = auto()  # retry indefinitely
    SETUP = auto()  # retry a limited number of times, then end the consumer

    @property
    def is_event(self) -> bool:
        """Whether the event may become a dead letter."""
        return self in (Blame.EVENT, Blame.EVENT_ALWAYS)


def blame(error: BaseException, event: Event) -> Blame:
    """Return what an exception of the handler, the decoder or the inbox is due to.

    The causes of an exception count too, because handlers and libraries wrap those of drivers.
    """
    first = _of_one(error, event)
    if isinstance(error, Rejected):  # the handler's own decision
        return first
    found = [_of_one(cause, event) for cause in _causes(error)]
    if isinstance(error, BaseExceptionGroup):
        parts = [blame(part, event) for part in error.exceptions]
        found += parts
        if all(part is Blame.EVENT_ALWAYS for part in parts):
            first = Blame.EVENT_ALWAYS
    return next((each for each in (first, *found) if not each.is_event), first)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    cause = error
    while following := cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__):
        if id(following) in seen:
            return
        seen.add(id(following))
        yield (cause := following)


def _of_one(error: BaseException, event: Event) -> Blame:
    if isinstance(error, Temporary):
        return Blame.OUTAGE
    if isinstance(error, Rejected):
        return Blame.EVENT_ALWAYS
    if isinstance(error, Undecodable):
        return _of_value(error, event)
    if isinstance(error, InboxError):  # in the block; before it, `InboxRunner` raises others
        return Blame.EVENT
    if isinstance(error, CdcError):
        return Blame.SETUP
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(state, str):
        return of_sqlstate(state, error)
    return Blame.OUTAGE if isinstance(error, psycopg.OperationalError) else Blame.EVENT


def _of_value(error: Undecodable, event: Event) -> Blame:
    if not isinstance(error, UnusableSchema) or not (event.id or event.type or event.position):
        return Blame.EVENT_ALWAYS  # a record of another program may hold anything
    # The publisher sends no id that the registry does not have: a replica lags, or the registry is another one.
    return Blame.OUTAGE if isinstance(error, UnknownId) and not isinstance(error, NoRegistry) else Blame.SETUP


def of_sqlstate(state: str, error: BaseException) -> Blame:
    """Return what an error of PostgreSQL is due to."""
    if state == _READ_ONLY or isinstance(classified(state, message_of(error), "applying an event"), Temporary):
        return Blame.OUTAGE
    if state == _INTERNAL or (state[:2] in _OF_VALUES and state not in _OF_OBJECTS):
        return Blame.EVENT
    return Blame.SETUP


_LONGEST: Final = 1000


def class_of(error: BaseException, *, full: bool = False) -> str:
    """Return the name of an exception's class, with its module if `full`. Never raises."""
    try:
        kind = type(error)
        return _safe(f"{kind.__module__}.{kind.__qualname__}" if full else kind.__name__)
    except Exception:
        return "(a class without a name)"


def message_of(error: BaseException) -> str:
    """Return an exception's message, at most 1000 characters that Kafka's client accepts. Never raises."""
    try:
        return _safe(str.__str__(str(error)))
    except Exception as failed:
        return f"(no message: its __str__ raised {class_of(failed)})"


def _safe(text: str) -> str:
    """Replace NUL characters and lone surrogates, and shorten."""
    cut = text[:_LONGEST].encode(errors="replace").decode().replace("\0", " ")
    return cut if len(text) <= _LONGEST else f"{cut}…"


def ends_the_program(error: BaseException) -> bool:
    """Return whether an exception asks the program to end, or contains one that does."""
    if isinstance(error, BaseExceptionGroup):
        return any(ends_the_program(part) for part in error.exceptions)
    return isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))

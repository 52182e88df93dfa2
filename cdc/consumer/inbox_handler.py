"""Run a handler in the same transaction as its inbox row, on a persistent connection."""

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from cdc.consumer.blame import Blame, blame, class_of, ends_the_program, message_of, of_sqlstate
from cdc.consumer.errors import MissingId, Rejected
from cdc.consumer.events import Event
from cdc.consumer.inbox import Inbox
from cdc.errors import CdcError, ConfigError, PostgresError, PostgresUnavailable, Temporary

log = logging.getLogger(__name__)

_DATA: Final = "22"  # the class of data exceptions

Connect = Callable[[], "psycopg.Connection[Any]"]
InboxHandler = Callable[[Event, "psycopg.Connection[Any]"], None]


class InboxRunner:
    """Calls the handler with each event that is new to the inbox, and with the connection."""

    def __init__(self, inbox: Inbox, connect: Connect, handler: InboxHandler) -> None:
        self._inbox = inbox
        self._connect = connect
        self._handler = handler
        self._connection: psycopg.Connection[Any] | None = None

    def open(self) -> "psycopg.Connection[Any]":
        """Return the connection, re-created if it was lost. Raises PostgresUnavailable and ConfigError."""
        if self._connection is None or self._connection.closed:
            self._connection = None
            try:
                made = self._connect()
                status, closed = made.info.transaction_status, made.closed
            except CdcError:
                raise
            except Exception as error:
                raise PostgresUnavailable("the inbox cannot connect to PostgreSQL: " + _first_line(error)) from error
            if closed:
                raise PostgresUnavailable(
                    "the inbox cannot connect to PostgreSQL: connect returned a closed connection"
                )
            if status != TransactionStatus.IDLE:
                made.close()
                raise ConfigError(
                    "connect returned a connection with an open transaction",
                    hint="commit in connect, or return an autocommit connection",
                )
            self._connection = made
        return self._connection

    def __call__(self, event: Event) -> None:
        """Apply one event, or skip it if it was applied before.

        Raises MissingId, InvalidId, PostgresUnavailable, PostgresError if the inbox cannot be used, and the errors of
        the handler and of the inbox after the handler has begun. The next event gets a new connection after an error
        that may be due to this one.
        """
        if event.id is None:
            raise MissingId("the record has no readable header id, which the inbox needs")
        connection = self.open()
        entered = False
        try:
            with self._inbox.event(connection, event.id) as new:
                entered = True
                if new:
                    self._handler(event, connection)
                else:
                    log.debug("skipped %s, which was applied before", event)
        except BaseException as error:
            if ends_the_program(error):
                raise
            if connection.closed:  # the outcome is unknown; the inbox decides at the next attempt
                raise PostgresUnavailable("the inbox lost its connection: " + _first_line(error)) from error
            found = error if entered else _unusable(error)
            if not blame(found, event).is_event and (found is not error or not isinstance(error, Temporary)):
                self.close()
            if found is error:
                raise
            raise found from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


def _unusable(error: BaseException) -> BaseException:
    """Return the error to raise for one of the inbox before the handler has begun: only an id can be at fault then."""
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, Rejected) or state.startswith(_DATA):
        return error
    message = "the inbox cannot be used: " + _first_line(error)
    if isinstance(error, psycopg.Error) and (not state or of_sqlstate(state, error) is Blame.OUTAGE):
        return PostgresUnavailable(message)
    return PostgresError(message, hint="check the inbox's table, the role's privileges on it, and connect")


def _first_line(error: BaseException) -> str:
    return message_of(error).strip().split("\n")[0] or class_of(error)

"""A handler whose writes and whose row in the inbox are one transaction, on a connection that is kept."""

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import psycopg

from cdc.consumer.errors import MissingId
from cdc.consumer.events import Event
from cdc.consumer.inbox import Inbox
from cdc.errors import PostgresUnavailable

log = logging.getLogger(__name__)

Connect = Callable[[], "psycopg.Connection[Any]"]
InboxHandler = Callable[[Event, "psycopg.Connection[Any]"], None]


class Applying:
    """Gives the handler each event that is new to the inbox, with the connection."""

    def __init__(self, inbox: Inbox, connect: Connect, handler: InboxHandler) -> None:
        self._inbox = inbox
        self._connect = connect
        self._handler = handler
        self._connection: psycopg.Connection[Any] | None = None

    def open(self) -> "psycopg.Connection[Any]":
        """The connection, made anew where it was lost. Raises PostgresUnavailable."""
        if self._connection is None or self._connection.closed:
            try:
                self._connection = self._connect()
            except psycopg.OperationalError as error:
                raise PostgresUnavailable("the inbox cannot connect to PostgreSQL: " + _first_line(error)) from error
        return self._connection

    def __call__(self, event: Event) -> None:
        """Apply one event, or pass it over. Raises what handler and inbox do, MissingId, PostgresUnavailable."""
        if event.id is None:
            raise MissingId("the record has no header id that can be read, by which the inbox would know it")
        connection = self.open()
        try:
            with self._inbox.event(connection, event.id) as new:
                if new:
                    self._handler(event, connection)
                else:
                    log.debug("%s was applied before and is passed over", event)
        except Exception as error:
            if connection.closed:  # whose fault ever: what was done is not known, and the inbox will tell
                raise PostgresUnavailable("the inbox lost its connection: " + _first_line(error)) from error
            raise

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__

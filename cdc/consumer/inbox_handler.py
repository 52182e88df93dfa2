"""Run a handler in the same transaction as its inbox row, on a persistent connection."""

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


class InboxRunner:
    """Calls the handler with each event that is new to the inbox, and with the connection."""

    def __init__(self, inbox: Inbox, connect: Connect, handler: InboxHandler) -> None:
        self._inbox = inbox
        self._connect = connect
        self._handler = handler
        self._connection: psycopg.Connection[Any] | None = None

    def open(self) -> "psycopg.Connection[Any]":
        """Return the connection, re-created if it was lost. Raises PostgresUnavailable."""
        if self._connection is None or self._connection.closed:
            try:
                self._connection = self._connect()
            except psycopg.OperationalError as error:
                raise PostgresUnavailable("the inbox cannot connect to PostgreSQL: " + _first_line(error)) from error
        return self._connection

    def __call__(self, event: Event) -> None:
        """Apply one event, or skip it if it was applied before.

        Raises MissingId, PostgresUnavailable, and the errors of handler and inbox.
        """
        if event.id is None:
            raise MissingId("the record has no readable header id, which the inbox needs")
        connection = self.open()
        try:
            with self._inbox.event(connection, event.id) as new:
                if new:
                    self._handler(event, connection)
                else:
                    log.debug("skipped %s, which was applied before", event)
        except Exception as error:
            if connection.closed:  # the outcome is unknown; the inbox decides at the next attempt
                raise PostgresUnavailable("the inbox lost its connection: " + _first_line(error)) from error
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__

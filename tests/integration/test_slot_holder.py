"""Who holds a slot: a publisher at work, a connection of ours that has ended, or a reader that is frozen."""

import contextlib
from collections.abc import Iterator

import pytest

from cdc.app.connections import Servers
from cdc.config.settings import Settings
from cdc.postgres import outbox_table as table
from cdc.postgres import slots
from cdc.postgres.connection import Conn, connect
from cdc.postgres.source import Source

SLOT = "held"


@pytest.fixture
def connection(database: str) -> Iterator[Conn]:
    settings = Settings.model_validate({"postgres": {"dsn": database, "slot": SLOT}})
    with connect(database) as connection:
        table.execute(connection, table.missing(connection, settings))
        slots.create(connection, SLOT)
        try:
            yield connection
        finally:
            slots.drop(connection, SLOT)


def test_the_holder_of_a_slot_is_told_with_the_time_since_it_replied(connection: Conn, database: str) -> None:
    assert slots.holder(connection, SLOT) is None
    with contextlib.closing(Source(database)) as source:
        source.start(SLOT, "cdc_publisher", binary=True)
        held = slots.holder(connection, SLOT)
        assert held is not None
        pid, silent_seconds = held
        assert pid == source.pid
        assert silent_seconds is not None
        assert 0 <= silent_seconds < 60
        source.stop()


@pytest.mark.parametrize(
    ("holder", "told"),
    [
        (None, ""),
        ((7, 1.0), ""),
        ((7, None), ""),
        ((7, 75.0), "process 7 of PostgreSQL holds the slot, and its reader has not replied for 75 s"),
        ((8, 1.0), "process 8 of PostgreSQL still holds the slot for a closed connection of this publisher"),
    ],
)
def test_a_holder_that_does_nothing_is_told_from_a_publisher(
    holder: tuple[int, float | None] | None, told: str
) -> None:
    servers = Servers(Settings())
    servers._pids.append(8)
    assert servers._held(holder) == told

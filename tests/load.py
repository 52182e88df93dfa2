"""Writers that insert notes until they are told to stop."""

import json
import random
import threading
import time
from types import TracebackType
from typing import Self

import psycopg

from tests.pipeline import eventually

_QUICK_ROWS = 10_000
_SLOW_SECONDS = 0.02


class Load:
    """A few writers with keys of their own; a context manager that joins them.

    A writer whose connection breaks connects again: what it knows to be committed is in the table anyway. Writers that
    nothing waits for slow down: rows that are written while a test waits for a server would be most of what it judges.
    """

    def __init__(
        self, dsn: str, *, writers: int = 3, pause: float = 0.002, aggregates: tuple[str, ...] = ("note",)
    ) -> None:
        self._dsn = dsn
        self._pause = pause
        self._aggregates = aggregates
        self._stop = threading.Event()
        self._committed = 0
        self._quick_until = _QUICK_ROWS
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(writers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, rows: int = 300) -> None:
        """Wait until so many more rows are committed, give or take a few."""
        wanted = self._committed + rows
        self._quick_until = wanted + _QUICK_ROWS
        eventually(lambda: self._committed >= wanted, f"{rows} more rows are committed")

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        seq = 0
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn) as connection:
                    while not self._stop.is_set():
                        seq = self._transaction(connection, chance, number, seq)
                        is_quick = self._committed < self._quick_until
                        self._stop.wait(self._pause if is_quick else max(self._pause, _SLOW_SECONDS))
            except psycopg.Error:
                seq += 10  # whether the last commit arrived is unknown: its numbers are not used again
                time.sleep(0.1)

    def _transaction(
        self, connection: "psycopg.Connection[tuple[object, ...]]", chance: random.Random, number: int, seq: int
    ) -> int:
        rows = [
            (chance.choice(self._aggregates), f"w{number}-{chance.randrange(4)}", json.dumps({"seq": seq + row}))
            for row in range(chance.randint(1, 5))
        ]
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(
                "insert into outbox (aggregatetype, aggregateid, type, payload) values (%s, %s, 'Noted', %s)", rows
            )
        self._committed += len(rows)
        return seq + len(rows)

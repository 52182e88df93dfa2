"""Concurrent writers of the demo, each with its own connection, that use the outbox as a service would.

One writer places an order and any writer pays or cancels it, so that events of one key come from several sessions. An
order is passed on only after its last transaction has committed.
"""

import contextlib
import queue
import threading
import time
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from cdc.demo.shop import Order, ShopEvent, Till
from cdc.demo.tally import Tally
from cdc.errors import CdcError
from cdc.postgres.connection import connect

WRITERS: Final = 4
SECONDS: Final = 8.0
LARGE_ORDERS: Final = 100
LARGE_PARTS: Final = 19  # with each order's OrderPlaced 2,000 rows
_PAUSE_SECONDS: Final = 0.025  # between two transactions of a writer, on average
_SEED: Final = 1815

_INSERT: Final = """
    insert into public.outbox (id, aggregatetype, aggregateid, type, payload) values (%s, %s, %s, %s, %s)
"""
TABLE: Final = """
    create table public.orders (
        id uuid primary key, customer text not null, total numeric(14, 2) not null, currency text not null,
        status text not null
    )
"""

Conn = psycopg.Connection[TupleRow]


class Writers:
    """Writes to the database at `dsn` for `seconds`; `tally` counts the rows."""

    def __init__(self, dsn: str, seconds: float = SECONDS) -> None:
        self.tally = Tally()
        self._dsn = dsn
        self._seconds = seconds
        self._stop = threading.Event()
        self._open: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(n,), name=f"writer-{n}", daemon=True) for n in range(WRITERS)
        ]
        self._threads.append(threading.Thread(target=self._guarded, args=(None,), name="marketplace", daemon=True))

    def start(self) -> None:
        """Start all writers."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop all writers and wait for them."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    @property
    def at_work(self) -> int:
        """The number of running writers. Raises CdcError if a writer failed."""
        if self._error:
            raise CdcError(f"a writer of the demo failed: {self._error}") from self._error
        return sum(thread.is_alive() for thread in self._threads)

    def _guarded(self, number: int | None) -> None:
        try:
            with contextlib.closing(connect(self._dsn)) as connection:
                if number is None:
                    self._marketplace(connection)
                else:
                    self._serve(connection, Till(_SEED + number))
        except BaseException as error:  # raised by `at_work`
            self._error = error

    def _serve(self, connection: Conn, till: Till) -> None:
        close_at = time.monotonic() + self._seconds
        while time.monotonic() < close_at and not self._stop.is_set():
            order = self._next(till)
            if order is None:
                self._place(connection, till)
            elif till.random.random() < 0.15:
                self._cancel(connection, till, order)
            else:
                self._capture(connection, till, order)
            self._stop.wait(till.random.expovariate(1 / _PAUSE_SECONDS))

    def _next(self, till: Till) -> Order | None:
        """Return an open order, or None to place a new one."""
        with contextlib.suppress(queue.Empty):
            if till.random.random() < 0.6:
                return self._open.get_nowait()
        return None

    def _place(self, connection: Conn, till: Till) -> None:
        made = [till.order() for _ in range(till.random.choice((1, 1, 1, 2, 3)))]
        events = [event for _, event in made]
        refused = till.random.random() < 0.12  # the payment service refused after the rows were written
        with connection.transaction(force_rollback=refused):
            _insert_orders(connection, [order for order, _ in made])
            _insert(connection, events)
        if refused:
            self.tally.rolled_back(events)
            return
        self.tally.committed(events)
        for order, _ in made:
            self._open.put(order)

    def _capture(self, connection: Conn, till: Till, order: Order) -> None:
        declined: ShopEvent | None = None
        with connection.transaction():
            if till.random.random() < 0.2:
                # The first attempt is declined and rolled back; the transaction continues.
                before = order.unpaid, order.paid
                with connection.transaction(force_rollback=True):
                    declined = till.capture(order)
                    _insert(connection, [declined])
                order.unpaid, order.paid = before
            event = till.capture(order)
            status = "open" if order.unpaid else "paid"
            connection.execute("update public.orders set status = %s where id = %s", [status, order.id])
            _insert(connection, [event])
        if declined:
            self.tally.rolled_back_to_savepoint([declined])
        self.tally.committed([event])
        if order.unpaid:
            self._open.put(order)

    def _cancel(self, connection: Conn, till: Till, order: Order) -> None:
        event = till.cancel(order)
        with connection.transaction():
            connection.execute("update public.orders set status = 'cancelled' where id = %s", [order.id])
            _insert(connection, [event])
        self.tally.committed([event])

    def _marketplace(self, connection: Conn) -> None:
        """Insert the orders of a marketplace as one transaction, after a first attempt that rolls back half-way."""
        till = Till(_SEED + WRITERS)
        if self._stop.wait(self._seconds * 0.45):
            return
        orders, events = _day(till)
        half = events[: len(events) // 2]
        with connection.transaction(force_rollback=True):
            _insert_orders(connection, orders)
            _insert(connection, half)
        self.tally.rolled_back(half)
        if self._stop.wait(self._seconds * 0.15):
            return
        orders, events = _day(till)
        self.tally.large = frozenset(event.id for event in events)
        with connection.transaction():
            _insert_orders(connection, orders)
            _insert(connection, events)
        self.tally.committed(events)


def _day(till: Till) -> tuple[list[Order], list[ShopEvent]]:
    made = [till.order(LARGE_PARTS) for _ in range(LARGE_ORDERS)]
    orders = [order for order, _ in made]
    # One instalment of each order in turn, so that keys are interleaved.
    captures = [till.capture(order) for _ in range(LARGE_PARTS) for order in orders]
    return orders, [event for _, event in made] + captures


def _insert(connection: Conn, events: list[ShopEvent]) -> None:
    rows = [(event.id, event.aggregate, event.key, event.type, event.payload) for event in events]
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT, rows)


def _insert_orders(connection: Conn, orders: list[Order]) -> None:
    rows = [(order.id, order.customer, order.total, order.currency) for order in orders]
    with connection.cursor() as cursor:
        cursor.executemany("insert into public.orders values (%s, %s, %s, %s, 'open')", rows)

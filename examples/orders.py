"""Maintain a table of orders: each event is applied once, despite crashes and redelivered events.

python examples/orders.py --dsn postgresql://postgres@127.0.0.1/shop --kafka 127.0.0.1:9092 --schemas schemas
"""

import argparse
import logging
import signal
from typing import Any

import psycopg

from cdc.consumer import Consumer, Decoder, Event, Inbox

TABLE = "CREATE TABLE IF NOT EXISTS orders (id uuid PRIMARY KEY, customer text, total numeric, status text)"


def apply(event: Event, connection: "psycopg.Connection[Any]") -> None:
    """Apply one event, in the same transaction as its row in the inbox."""
    order = event.value
    if event.type == "OrderPlaced":
        connection.execute(
            "INSERT INTO orders VALUES (%s, %s, %s, 'placed')",
            [order["order_id"], order["customer"]["name"], order["total"]],
        )
    elif event.type == "OrderCancelled":
        connection.execute("UPDATE orders SET status = 'cancelled' WHERE id = %s", [order["order_id"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    parser.add_argument("--topic", default="outbox.event.order")
    parser.add_argument("--schemas", default="schemas")
    parser.add_argument("--dead-letter", help="topic for events that keep failing; without one they stop the program")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)

    inbox = Inbox("orders")
    with psycopg.connect(given.dsn) as connection:
        inbox.create(connection)
        connection.execute(TABLE)
    consumer = Consumer(
        {"bootstrap.servers": given.kafka, "group.id": "orders"},
        [given.topic],
        apply,
        inbox=inbox,
        connect=lambda: psycopg.connect(given.dsn, connect_timeout=10),
        decoder=Decoder(folder=given.schemas),
        dead_letter=given.dead_letter,
    )
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    consumer.run()


if __name__ == "__main__":
    main()

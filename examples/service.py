"""An asyncio service with its own Kafka loop that counts payments by method: AsyncInbox without cdc's Consumer.

python examples/service.py --dsn postgresql://postgres@127.0.0.1/shop --kafka 127.0.0.1:9092 --schemas schemas
"""

import argparse
import asyncio
import signal

import psycopg
from confluent_kafka import Consumer

from cdc.consumer import AsyncInbox, Decoder, Event

TABLE = "CREATE TABLE IF NOT EXISTS payments (method text PRIMARY KEY, captured bigint NOT NULL)"
COUNT = "INSERT INTO payments VALUES (%s, 1) ON CONFLICT (method) DO UPDATE SET captured = payments.captured + 1"


async def serve(given: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    inbox, decode = AsyncInbox("payments"), Decoder(folder=given.schemas)
    kafka = {"bootstrap.servers": given.kafka, "group.id": "payments", "isolation.level": "read_committed"}
    consumer = Consumer({**kafka, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    consumer.subscribe([given.topic])
    try:
        async with await psycopg.AsyncConnection.connect(given.dsn, autocommit=True) as connection:
            await inbox.create(connection)
            await connection.execute(TABLE)
            while not stopping.is_set():
                message = await asyncio.to_thread(consumer.poll, 0.2)
                if message is None or message.error() is not None:
                    continue
                event = Event.of(message, decode)
                if event.id is None:
                    raise SystemExit(f"no event of cdc-publisher: {event}")
                async with inbox.event(connection, event.id) as new:
                    if new:
                        await connection.execute(COUNT, [event.value["method"]])
                # Commit last: after a crash, uncommitted records are redelivered, and the inbox recognizes them.
                consumer.commit(message=message)
    finally:
        consumer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    parser.add_argument("--topic", default="outbox.event.payment")
    parser.add_argument("--schemas", default="schemas")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()

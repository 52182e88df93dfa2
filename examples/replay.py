"""Send a consumer's dead letters to a topic that only this consumer reads as well, each letter once, and end.

python examples/replay.py --kafka 127.0.0.1:9092 --dead-letter billing.dead-letter --to billing.retry
"""

import argparse
from datetime import UTC, datetime

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from cdc.consumer import Event


def send(producer: Producer, topic: str, message: Message) -> None:
    event, at = Event.of(message), datetime.now(UTC).isoformat(timespec="milliseconds")
    own = ("cdc-error-", "cdc-replayed")
    headers: list[tuple[str, str | bytes | None]] = [each for each in event.headers if not each[0].startswith(own)]
    headers += [("cdc-replayed-from", event.header("cdc-error-topic")), ("cdc-replayed", at.encode())]
    time = int(event.header("cdc-error-timestamp") or event.timestamp)
    producer.produce(topic, event.raw, event.key, timestamp=time, headers=headers)


def partitions(messages: list[Message]) -> set[int]:
    return {message.partition() or 0 for message in messages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    parser.add_argument("--dead-letter", required=True, help="the topic that the consumer was given as dead_letter")
    parser.add_argument("--to", required=True, help="a topic that the consumer reads, and no other")
    given = parser.parse_args()

    # The offsets of this group say which letters were sent. They are committed with the records, in one transaction.
    name, servers = f"{given.dead_letter}.replay", {"bootstrap.servers": given.kafka}
    group = {"group.id": name, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({**servers, **group, "isolation.level": "read_committed", "enable.partition.eof": True})
    producer = Producer({**servers, "transactional.id": name, "partitioner": "murmur2_random"})
    producer.init_transactions(30)
    consumer.subscribe([given.dead_letter])
    ended, sent = set[int](), 0
    while not ended or ended < {part.partition for part in consumer.assignment()}:
        messages = consumer.consume(500, 1.0)
        ended |= partitions([message for message in messages if message.error() is not None])  # errors are the ends
        letters = [message for message in messages if message.error() is None]
        if letters:
            producer.begin_transaction()
            for message in letters:
                send(producer, given.to, message)
            reached = consumer.position([TopicPartition(given.dead_letter, number) for number in partitions(letters)])
            producer.send_offsets_to_transaction(reached, consumer.consumer_group_metadata())
            producer.commit_transaction()
            sent += len(letters)
    consumer.close()
    print(f"sent {sent} dead letters to {given.to}")


if __name__ == "__main__":
    main()

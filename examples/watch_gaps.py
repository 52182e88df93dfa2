"""Watch topics for lost, repeated and late records, and print an alarm for each. Losses need [delivery] sequence.

python examples/watch_gaps.py --kafka 127.0.0.1:9092 outbox.event.order outbox.event.payment
"""

import argparse
import signal
import threading

from confluent_kafka import Consumer, TopicPartition

from cdc.consumer import Duplicate, Event, Gap, GapDetector, Recounted, Reordered, Verdict


def alarm(verdict: Verdict) -> None:
    print(f"ALARM {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    parser.add_argument("topics", nargs="+")
    given = parser.parse_args()

    detector = GapDetector()
    for kind in (Gap, Duplicate, Reordered, Recounted):
        detector.on(kind, alarm)
    consumer = Consumer(
        {
            "bootstrap.servers": given.kafka,
            "group.id": "watch-gaps",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,  # each start looks at everything that is there
            "auto.offset.reset": "earliest",
        }
    )

    def forget(_: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            detector.forget(partition.topic, partition.partition)

    consumer.subscribe(given.topics, on_revoke=forget, on_lost=forget)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    while not stopping.is_set():
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            event = Event.of(message)
            detector.observe(event.topic, event.partition, event.offset, event.headers)
    consumer.close()


if __name__ == "__main__":
    main()

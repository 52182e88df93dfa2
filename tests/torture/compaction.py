"""The cleaner of Kafka, made to run to its end while nobody publishes."""

import time
from typing import Final

from confluent_kafka import KafkaException, Producer

from tests.torture import topics
from tests.torture.judge import FILLER
from tests.torture.stage import PARTITIONS, Stage

_SECONDS: Final = 30.0  # an open Kafka transaction of a publisher that was killed may hold it up for longer


def compact(stage: Stage) -> None:
    """Wait until the compacted topic holds one record of each key, or give up; count it if it does."""
    producer = Producer({"bootstrap.servers": stage.kafka, "message.timeout.ms": 5000})
    sizes = []
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        # The active segment is never cleaned: another record begins a new one.
        for partition in range(PARTITIONS):
            producer.produce(stage.compacted, b"{}", FILLER, partition)
        producer.flush(5)
        try:
            keys = [r.key for r in topics.records(stage.kafka, [stage.compacted]) if r.key != FILLER]
        except KafkaException:  # a broker is down
            continue
        sizes.append(len(keys))
        if len(keys) == len(set(keys)):
            stage.compactions += 1
            break
        time.sleep(0.5)
    stage.tell("compacted", sizes=sizes)

"""A producer of tests that need their records in the log as they were sent."""

from typing import Any

from confluent_kafka import Producer


def in_order(kafka: str, **more: Any) -> Producer:
    """One request at a time: a new topic may refuse the first and take the second. `more` are other properties."""
    return Producer({"bootstrap.servers": kafka, "acks": "all", "enable.idempotence": True, "max.in.flight": 1, **more})

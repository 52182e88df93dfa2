"""Subjects: the name under which a registry stores a record's schema.

The three strategies of Confluent's serializers:
<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#subject-name-strategy>
"""

from collections.abc import Callable
from typing import Final, Literal

Strategy = Literal["topic-record-name", "record-name", "topic-name"]

_STRATEGIES: Final[dict[Strategy, Callable[[str, str], str]]] = {
    "topic-record-name": lambda topic, record: f"{topic}-{record}",
    "record-name": lambda _, record: record,
    "topic-name": lambda topic, _: f"{topic}-value",
}


def subject(strategy: Strategy, topic: str, record_name: str) -> str:
    """Return the subject of values in `topic`; `record_name` is the record's full name."""
    return _STRATEGIES[strategy](topic, record_name)

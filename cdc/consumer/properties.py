"""librdkafka's properties for a consumer: ours, the user's, and those that are refused because they break the promise.

<https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from cdc.config.librdkafka import Value

DEFAULTS: Final[dict[str, Value]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "allow.auto.create.topics": False,
    # A topic that is made after the start is noticed within that time rather than in five minutes.
    "topic.metadata.refresh.interval.ms": 10_000,
}

_EARLIEST: Final = ("earliest", "smallest", "beginning", "error")
# Property: which values keep the promise, and why others do not.
_PROMISES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "isolation.level": (("read_committed",), "records of transactions that were taken back would be handled"),
    "enable.auto.commit": (("false", "0"), "offsets would be committed before their events are handled"),
    "enable.auto.offset.store": (("false", "0"), "only what is handled may be committed"),
    "auto.offset.reset": (
        _EARLIEST,
        "events would be passed over in silence: to begin at the end, commit offsets there",
    ),
    "allow.auto.create.topics": (("false", "0"), "topics would appear with the broker's defaults"),
}

_OF_THE_PUBLISHER: Final = "cdc.dead-letter"


def consumer(given: Mapping[str, Value]) -> dict[str, Value]:
    """The consumer's configuration: the user's properties over our defaults."""
    return {name: _text(value) for name, value in {**DEFAULTS, **given}.items()}


def problems(given: Mapping[str, Value], topics: Sequence[str], dead_letter: str | None) -> list[str]:
    """One line for everything that would break the promise."""
    found = [f'"{name}" is missing' for name in ("bootstrap.servers", "group.id") if not given.get(name)]
    for name, value in given.items():
        allowed, reason = _PROMISES.get(name, ((), ""))
        if allowed and _text(value).lower() not in allowed:
            found.append(f'"{name}" = {_text(value)} is refused: {reason}')
    if not topics:
        found.append("there are no topics to consume")
    if dead_letter == _OF_THE_PUBLISHER:
        found.append(f"{dead_letter!r} is the publisher's: dlq replay would send its letters to every consumer again")
    return found + [
        f"the dead letters of {dead_letter!r} would be consumed again, as {topic!r} is subscribed"
        for topic in topics
        if dead_letter and (topic == dead_letter or (topic.startswith("^") and re.match(topic, dead_letter)))
    ]


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

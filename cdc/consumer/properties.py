"""librdkafka properties of consumers: defaults, the user's, and values refused because they break guarantees.

<https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cdc.config import librdkafka

DEFAULTS: Final[dict[str, librdkafka.Value]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "allow.auto.create.topics": False,
    # A topic that is created later is noticed within this time instead of five minutes.
    "topic.metadata.refresh.interval.ms": 10_000,
    # The end of a partition lies behind markers of transactions, whose offsets no record has.
    "enable.partition.eof": True,
}

_EARLIEST: Final = ("earliest", "smallest", "beginning", "error")
# Property: the values that keep the guarantees, and why others do not.
_PROMISES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "isolation.level": (("read_committed",), "records of aborted transactions would be handled"),
    "enable.auto.commit": (("false", "0"), "offsets would be committed before their events are handled"),
    "enable.auto.offset.store": (("false", "0"), "only offsets of handled events may be committed"),
    "auto.offset.reset": (
        _EARLIEST,
        "events would be skipped silently; to begin at the end, commit offsets there",
    ),
    "allow.auto.create.topics": (("false", "0"), "topics would be created with the broker's defaults"),
}

_OF_THE_PUBLISHER: Final = "cdc.dead-letter"


def consumer(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the consumer's configuration: `given` overrides `DEFAULTS`. Callbacks pass through."""
    return {name: _text(value) for name, value in {**DEFAULTS, **given}.items()}


def connection(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties with which another client reaches the same cluster."""
    plain = {name: value for name, value in given.items() if isinstance(value, (str, int, float))}
    shared = {name: given[name] for name in ("oauth_cb", "logger") if given.get(name) is not None}
    return {**librdkafka.connection(plain), **shared}


def problems(given: Mapping[str, Any], topics: Sequence[str], dead_letter: str | None) -> list[str]:
    """Return one line for each argument that would break the guarantees."""
    found = [f'"{name}" is missing' for name in ("bootstrap.servers", "group.id") if not given.get(name)]
    for name, value in given.items():
        allowed, reason = _PROMISES.get(name, ((), ""))
        if allowed and str(_text(value)).lower() not in allowed:
            found.append(f'"{name}" = {_text(value)} is refused: {reason}')
    if given.get("logger") is not None and not callable(getattr(given["logger"], "log", None)):
        found.append('"logger" has no method log')
    if not topics:
        found.append("topics is empty")
    if dead_letter == _OF_THE_PUBLISHER:
        found.append(f"{dead_letter!r} is the publisher's: dlq replay would send these events to all consumers")
    return found + [
        f"dead letters in {dead_letter!r} would be consumed, because {topic!r} is subscribed"
        for topic in topics
        if dead_letter and (topic == dead_letter or (topic.startswith("^") and re.match(topic, dead_letter)))
    ]


def _text(value: Any) -> Any:
    """Return the text of a value of librdkafka; anything else, such as a callback, is returned unchanged."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) else value

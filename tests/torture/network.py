"""Faults of the network between the publisher and its servers, by the proxies."""

import random
import time
from collections.abc import Callable
from typing import Any, Final

from tests.torture.connection import Direction, Weather
from tests.torture.kafka_frames import KafkaFrames
from tests.torture.postgres_frames import PostgresFrames, error_response, refusal
from tests.torture.proxy import Proxy
from tests.torture.stage import Stage
from tests.torture.writers import AGGREGATES

Choose = Callable[[Stage, random.Random], list[Proxy]]
Do = Callable[[Proxy, random.Random], float]  # returns how long the fault lasts, in seconds
DIRECTIONS: Final[tuple[Direction, ...]] = ("up", "down")

# Errors of a server that passes by itself, one of them from each class, as walsenders were seen to report them.
STREAM_ERRORS: Final = (
    ("57P01", "terminating connection due to administrator command"),
    ("58P01", "requested WAL segment 000000010000000000000001 has already been read"),
    ("XX000", "could not find record while sending logically-decoded data: invalid record length"),
    ("XX000", "unexpected duplicate for tablespace 0, relfilenode 1663"),
    ("53200", "out of memory"),
    ("40001", "could not serialize access"),
)
CONNECT_ERRORS: Final = (
    ("57P03", "the database system is starting up"),
    ("57P03", "the database system is in recovery mode"),
    ("53300", "sorry, too many clients already"),
)


def _postgres(stage: Stage, _: random.Random) -> list[Proxy]:
    return [stage.pg_proxy]


def _kafka(stage: Stage, chance: random.Random) -> list[Proxy]:
    """Choose the connections to one broker in most cases, sometimes to all of them."""
    return stage.kafka_proxies if chance.random() < 0.25 else [chance.choice(stage.kafka_proxies)]


def _on(choose: Choose, do: Do) -> Callable[[Stage, random.Random], None]:
    def act(stage: Stage, chance: random.Random) -> None:
        proxies = choose(stage, chance)
        try:
            time.sleep(max(do(proxy, chance) for proxy in proxies))
        finally:
            for proxy in proxies:
                proxy.heal()

    return act


def _reset(proxy: Proxy, _: random.Random) -> float:
    proxy.reset()
    return 0


def _fin(proxy: Proxy, _: random.Random) -> float:
    proxy.finish()
    return 0


def _cut(proxy: Proxy, chance: random.Random) -> float:
    """Inside of what is said next, or inside of the handshakes that follow."""
    proxy.cut(chance.choice(DIRECTIONS), chance.choice((0, 1, 3, 7, 30, chance.randrange(20_000))))
    proxy.next_budgets.extend(chance.randrange(1, 3000) for _ in range(chance.randrange(3)))
    return chance.uniform(0.2, 1)


def _dark(proxy: Proxy, chance: random.Random) -> float:
    """Nothing arrives, in one direction or both; afterwards it does, or the connections are gone."""
    for direction in chance.choice((("up",), ("down",), DIRECTIONS)):
        proxy.set(direction, Weather(dark=True))
    seconds = chance.choice((0.5, 1.5, 3.0, 7.5))
    if chance.random() < 0.5:
        time.sleep(seconds)
        proxy.reset()
        return 0
    return seconds


def _half_open(proxy: Proxy, chance: random.Random) -> float:
    proxy.forsake()
    time.sleep(chance.uniform(0.5, 3))
    proxy.reset()
    return 0


def _slow(weather: Callable[[random.Random], Weather], shortest: float, longest: float) -> Do:
    def do(proxy: Proxy, chance: random.Random) -> float:
        for direction in DIRECTIONS:
            proxy.set(direction, weather(chance))
        return chance.uniform(shortest, longest)

    return do


def _refuse(proxy: Proxy, chance: random.Random) -> float:
    proxy.refusing = True
    proxy.reset()
    return chance.uniform(0.3, 2)


def _connect_error(proxy: Proxy, chance: random.Random) -> float:
    proxy.answer = refusal(*chance.choice(CONNECT_ERRORS))
    proxy.reset()
    return chance.uniform(0.3, 2)


def _keepalives(proxy: Proxy, chance: random.Random) -> float:
    """Many, so that some fall between the messages of one transaction."""

    def keepalive(frames: PostgresFrames) -> bytes | None:
        return frames.keepalive() if frames.is_stream and frames.wal_end else None

    until = time.monotonic() + chance.uniform(0.5, 2)
    while time.monotonic() < until:
        proxy.insert(keepalive)
        time.sleep(0.005)
    return 0


def _stream_error(proxy: Proxy, chance: random.Random) -> float:
    error = error_response(*chance.choice(STREAM_ERRORS))
    proxy.insert(lambda frames: error if frames.is_stream else None, last=True)
    return 0


def _hold(proxy: Proxy, chance: random.Random) -> float:
    """The responses of Produce wait, all of them or those of one partition."""
    one = (f"torture.{chance.choice(AGGREGATES)}", chance.randrange(4)) if chance.random() < 0.5 else None

    def held(frames: Any, frame: bytes) -> bool:
        return isinstance(frames, KafkaFrames) and frames.is_produced(frame, one)

    proxy.set("down", Weather(held=held))
    seconds = chance.uniform(0.5, 3)
    if chance.random() < 0.3:
        time.sleep(seconds)
        proxy.reset()  # and are lost
        return 0
    return seconds


def hold_commits(stage: Stage, chance: random.Random) -> None:
    """Requests to end a transaction wait, or the answers to them; half of the time they are lost then."""
    proxies = stage.kafka_proxies
    direction = chance.choice(DIRECTIONS)

    def held(frames: Any, frame: bytes) -> bool:
        return isinstance(frames, KafkaFrames) and frames.ending(frame, direction) is not None

    try:
        for proxy in proxies:
            proxy.set(direction, Weather(held=held))
        time.sleep(chance.uniform(0.5, 3))
        if chance.random() < 0.5:
            for proxy in proxies:
                proxy.reset()
    finally:
        for proxy in proxies:
            proxy.heal()


_delay: Final = _slow(lambda chance: Weather(delay=chance.uniform(0.02, 0.3)), 1, 4)
_rate: Final = _slow(lambda chance: Weather(rate=chance.choice((5_000, 50_000))), 1, 4)
_dribble: Final = _slow(lambda _: Weather(dribble=True), 0.5, 2)

_Faults = dict[str, tuple[float, Callable[[Stage, random.Random], None]]]
OF_STREAMS: Final[_Faults] = {
    "pg-keepalives": (0.2, _on(_postgres, _keepalives)),
    "pg-error": (0.25, _on(_postgres, _stream_error)),
}
"""What a server says in a replication stream."""
FAULTS: Final[_Faults] = {
    "pg-reset": (0.3, _on(_postgres, _reset)),
    "pg-fin": (0.15, _on(_postgres, _fin)),
    "pg-cut": (0.3, _on(_postgres, _cut)),
    "pg-dark": (0.25, _on(_postgres, _dark)),
    "pg-half-open": (0.15, _on(_postgres, _half_open)),
    "pg-delay": (0.15, _on(_postgres, _delay)),
    "pg-slow": (0.15, _on(_postgres, _rate)),
    "pg-dribble": (0.15, _on(_postgres, _dribble)),
    "pg-refuse": (0.15, _on(_postgres, _refuse)),
    "pg-connect-error": (0.15, _on(_postgres, _connect_error)),
    "kafka-reset": (0.3, _on(_kafka, _reset)),
    "kafka-fin": (0.15, _on(_kafka, _fin)),
    "kafka-cut": (0.3, _on(_kafka, _cut)),
    "kafka-dark": (0.25, _on(_kafka, _dark)),
    "kafka-half-open": (0.15, _on(_kafka, _half_open)),
    "kafka-delay": (0.15, _on(_kafka, _delay)),
    "kafka-slow": (0.15, _on(_kafka, _rate)),
    "kafka-dribble": (0.15, _on(_kafka, _dribble)),
    "kafka-refuse": (0.15, _on(_kafka, _refuse)),
    "kafka-hold": (0.3, _on(_kafka, _hold)),
}

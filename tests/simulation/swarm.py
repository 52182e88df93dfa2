"""Random worlds: each seed enables some of the misfortunes, at rates of its own."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE
from tests.simulation.plan import SWITCH, Act, Plan, Transaction, Write
from tests.simulation.rows import POISON, TOMBSTONE, Kind
from tests.simulation.table import RETYPES

_KEYS: Final = ("a", "b", "c", "d", "e")
_TOPICS: Final = ("outbox.event.order", "outbox.event.payment")
_DURATIONS: Final = (0.05, 0.5, 2.0, 7.0)
_TIMEOUTS: Final = (1.0, 3.0, 6.0, 60.0, 0.0)

_TWO_COLUMNS: Final = (("id", "aggregateid"), ("aggregateid", "type"), ("tenant", "aggregateid"), ("payload", "type"))

Draw = Callable[[Random], tuple[object, ...]]


def _seconds(random: Random) -> float:
    return random.choice(_DURATIONS) * (0.5 + random.random())


def _some_seconds(random: Random) -> tuple[object, ...]:
    return (_seconds(random),)


def _nothing(random: Random) -> tuple[object, ...]:  # noqa: ARG001
    return ()


def _coin(random: Random) -> tuple[object, ...]:
    return (random.random() < 0.5,)


FAULTS: Final[dict[str, Draw]] = {
    "crash": _coin,
    "power_off": _nothing,
    "terminate": _nothing,
    "reload": _nothing,
    "stall": _some_seconds,
    "take_over": lambda random: (_seconds(random), random.random() < 0.5),
    "pg_crash": _some_seconds,
    "pg_restart": _some_seconds,
    "checkpoint": _nothing,
    "cut": _coin,
    "black_hole": _nothing,
    "freeze_walsender": _some_seconds,
    "too_many_connections": _some_seconds,
    "password_changes": _some_seconds,
    "add_column": _nothing,
    "jump": lambda random: (random.choice((-3600.0, -1.0, 1.0, 86400.0)),),
    "outage": lambda random: (random.choice((_seconds(random), 60.0)),),
    "change_leaders": _some_seconds,
    "fatal": _nothing,
    "lose_replies": lambda random: (random.random(), _seconds(random)),
    "refuse": lambda random: (
        random.choice(_TOPICS),
        random.choice(("policy violated", "topic authorization denied")),
        _seconds(random),
    ),
    "no_topic": lambda random: (random.choice(_TOPICS), _seconds(random)),
    "schema_unknown": _some_seconds,
    "expire": lambda random: (random.choice(_TOPICS), random.choice((0.5, 1.0))),
    "end_transaction": _nothing,
    "sync_slot": _nothing,
    "slow_partition": lambda random: (random.choice(_TOPICS), random.choice((0, 1)), _seconds(random)),
}
"""Misfortunes of which several may come."""


def _retype(random: Random) -> tuple[object, ...]:
    column = random.choice(list(RETYPES))
    return column, random.choice(RETYPES[column])


TABLES: Final[dict[str, Draw]] = {
    "retype_column": _retype,
    "move_column": lambda random: (random.choice(list(RETYPES)),),
    "swap_columns": lambda random: random.choice(_TWO_COLUMNS),
    "add_column": _nothing,
    "clock_back": lambda random: (random.choice((1.0, 500.0)),),
}
BROKERS: Final[dict[str, Draw]] = {
    "unready": lambda random: (random.choice(_TOPICS), random.choice((0, 1)), random.choice((1, 1, 3))),
    "compact_while_down": lambda random: (random.choice(_TOPICS), random.random(), random.random() < 0.3),
    "compact": lambda random: (random.choice(_TOPICS), random.random(), random.random() < 0.3),
    "make_topic_anew": lambda random: (random.choice(_TOPICS),),
}
"""What others do to tables and topics; drawn apart from the rest, so that a seed keeps the rest of its world."""

OPERATORS: Final[dict[str, Draw]] = {
    "drop_slot": _nothing,
    "create_slot_again": _nothing,
    "advance_slot": _nothing,
    "invalidate_slot": _nothing,
    "drop_publication": _nothing,
    "leave_publication": lambda random: (random.choice((0.0, 0.0, 2.5)),),
    "rename_table": _nothing,
    "fail_over": _coin,
}
"""What operators and standbys do, of which at most one comes."""


def plan(seed: int, *, others: bool = True) -> Plan:
    """The world of a seed; with `others`, tables and topics are changed too."""
    random = Random(f"swarm/{seed}")
    span = random.choice((1.0, 3.0, 8.0))
    traffic = _traffic(random, span)
    acts = _acts(random, span)
    dead_letters = random.random() < 0.25
    made = Plan(
        f"swarm-{seed}",
        traffic,
        acts,
        version=random.choice((15, 18)),
        timeout=random.choice(_TIMEOUTS),
        partitions=random.choice((1, 2, 3)),
        latency=random.choice((0.001, 0.01, 0.2)),
        grain=random.choice((0.002, 0.01, 0.03)),
        burst=random.choice((1, 3, 12)),
        keepalives=random.choice((0.0, 0.2)),
        room=random.choice((1, 3, 1000)),
        dead_letters=dead_letters,
        flush_delay=random.choice((0.0, 0.0, 0.05)),
        save_rate=random.choice((0.0, 0.3, 1.0)),
        drain=random.choice((0.5, 5.0)),
        guarantee=random.choice((AT_LEAST_ONCE, AT_LEAST_ONCE, EXACTLY_ONCE, EXACTLY_ONCE, SWITCH)),
        sequence=random.random() < 0.5,
    )
    if not others:
        return made
    return _further(_by_others(made, Random(f"others/{seed}"), span), Random(f"further/{seed}"), span)


def _further(made: Plan, random: Random, span: float) -> Plan:
    """The same plan, with Kafka transactions that fail, and tables that inherit no more."""
    spoiled = [Act(span * random.random(), "spoil_transaction") for _ in range(random.choice((0, 0, 0, 1, 3)))]
    began = [act.at for act in made.acts if act.name == "add_child"]
    ended = [Act(at + (span - at) * random.random(), "remove_child") for at in began if random.random() < 0.5]
    return made.with_acts(*spoiled, *ended)


def _by_others(made: Plan, random: Random, span: float) -> Plan:
    """The same plan with changes of its table and topics."""
    headers = ("tenant",) if random.random() < 0.3 else ()
    acts = []
    for kinds in (TABLES, BROKERS):
        names = [name for name in kinds if random.random() < 0.4]
        if names and random.random() < 0.5:
            for _ in range(random.choice((1, 2, 4))):
                name = random.choice(names)
                acts.append(Act(span * random.random(), name, kinds[name](random)))
    if random.random() < 0.1 and not any(act.name in OPERATORS for act in made.acts):
        acts.append(Act(random.choice((0.0, span * random.random())), "add_child", _coin(random)))
    if random.random() < 0.3:  # what it begins with
        acts.append(Act(0.0, "retype_column", _retype(random)))
    traffic = made.traffic
    if random.random() < 0.2:
        traffic = tuple(
            replace(each, writes=tuple(_buried(write, random) for write in each.writes)) for each in traffic
        )
    recorded = made.recorded and random.random() < 0.9
    recorded = recorded or any(act.name in OPERATORS for act in made.acts)  # else nothing can be compared
    acts = sorted([*made.acts, *acts], key=lambda act: act.at)
    if random.random() > 0.75:
        traffic = tuple(
            replace(each, writes=tuple(_emitted(write, random) for write in each.writes)) for each in traffic
        )
    return replace(made, headers=headers, acts=tuple(acts), traffic=traffic, recorded=recorded)


def _emitted(write: Write, random: Random) -> Write:
    return replace(write, kind="emitted") if write.kind == "insert" and random.random() < 0.5 else write


def _buried(write: Write, random: Random) -> Write:
    return replace(write, payload=TOMBSTONE) if not write.payload and random.random() < 0.2 else write


def _traffic(random: Random, span: float) -> tuple[Transaction, ...]:
    kinds: list[Kind] = ["insert"] * 12
    kinds += [kind for kind in _rare() if random.random() < 0.4]
    poison = random.random() < 0.15
    aggregates = ("order", "payment") if random.random() < 0.5 else ("order",)
    keys = _KEYS[: random.randint(1, len(_KEYS))]
    made = []
    for _ in range(random.choice((2, 5, 10))):
        writes = tuple(
            Write(
                random.choice(kinds),
                random.choice((1, 1, 1, 3)),
                random.choice(keys),
                random.choice(aggregates),
                POISON if poison and random.random() < 0.1 else "",
            )
            for _ in range(random.choice((1, 1, 2, 4)))
        )
        hold = random.choice((0.0, 0.0, 0.3 * random.random() * span))
        made.append(Transaction(span * random.random(), writes, hold, random.random() < 0.9))
    return tuple(made)


def _rare() -> tuple[Kind, ...]:
    return ("other", "other", "update", "delete", "truncate", "message", "origin", "undone")


def _acts(random: Random, span: float) -> tuple[Act, ...]:
    names = [name for name in FAULTS if random.random() < 0.25]
    made = []
    if names:
        for _ in range(random.choice((1, 2, 4, 7))):
            name = random.choice(names)
            made.append(Act(span * random.random(), name, FAULTS[name](random)))
    if random.random() < 0.2:
        name = random.choice(list(OPERATORS))
        made.append(Act(span * random.random(), name, OPERATORS[name](random)))
    return tuple(sorted(made, key=lambda act: act.at))

"""The plan of a world: traffic and faults, as data."""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from cdc.delivery.positions import AT_LEAST_ONCE
from tests.simulation.rows import Kind

SWITCH: Final = "switch"
"""Another guarantee in each life of the process."""


@dataclass(frozen=True, slots=True)
class Write:
    """A statement of a transaction."""

    kind: Kind = "insert"
    count: int = 1
    key: str = "a"
    aggregate: str = "order"
    payload: str = ""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Some statements; with `hold`, the second half of them and the commit come so much later."""

    at: float
    writes: tuple[Write, ...]
    hold: float = 0.0
    commits: bool = True


@dataclass(frozen=True, slots=True)
class Act:
    """A misfortune: the name of a method of `Misfortunes`, and its arguments."""

    at: float
    name: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One world."""

    name: str
    traffic: tuple[Transaction, ...]
    acts: tuple[Act, ...] = ()
    version: int = 18
    timeout: float = 3.0  # wal_sender_timeout
    partitions: int = 2
    latency: float = 0.01
    grain: float = 0.004
    burst: int = 4
    keepalives: float = 0.1
    room: int = 1000  # of the producer's queue
    dead_letters: bool = False
    guarantee: str = AT_LEAST_ONCE  # or SWITCH
    sequence: bool = False
    flush_delay: float = 0.0
    save_rate: float = 0.3
    drain: float = 5.0
    patience: float = 60.0  # until everything must be settled after the last misfortune
    recorded: bool = True  # whether the slot was recorded in Kafka when it was created
    swept: bool = True  # whether its first process may die in any call
    headers: tuple[str, ...] = ()  # columns that are headers
    kafka: dict[str, Any] = field(default_factory=dict)

    @property
    def healed(self) -> float:
        """When the last planned thing has begun; acts end by themselves."""
        times = [transaction.at + transaction.hold for transaction in self.traffic] + [act.at for act in self.acts]
        return max(times, default=0.0)

    def with_acts(self, *acts: Act) -> "Plan":
        """The same with more misfortunes."""
        return replace(self, acts=(*self.acts, *acts))

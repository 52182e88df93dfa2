"""A publisher between its twins, with a clock of its own."""

from collections.abc import Callable

from cdc.delivery.loop import Publisher
from cdc.delivery.ports import NOT_AHEAD, Ahead
from cdc.delivery.session import Session
from cdc.errors import CdcError, KafkaUnavailable
from cdc.replication.settlement import Failure, Ledger
from cdc.telemetry.metrics import Metrics
from tests.memory import FOR_EVER, Clock, MemorySink, MemorySource
from tests.unit.shop import session


class Loop:
    """A publisher between its twins."""

    def __init__(
        self,
        *bursts: list[bytes],
        room: int = FOR_EVER,
        tick: float = 0.0,
        ahead: Ahead = NOT_AHEAD,
        metrics: Metrics | None = None,
    ) -> None:
        self.clock = Clock(tick=tick)
        self.source = MemorySource(self.clock, bursts)
        self.sink = MemorySink(self.clock, room)
        self.session: Session = session(Ledger(100, metrics.settled if metrics else None))
        self.publisher = Publisher(
            self.source, self.sink, self.session, failed, self.clock, ahead=ahead, metrics=metrics
        )

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.publisher.step()

    def until(self, reached: Callable[[], bool], limit: int = 1000) -> None:
        for _ in range(limit):
            if reached():
                return
            self.publisher.step()
        raise AssertionError(f"not reached in {limit} steps")


def failed(failure: Failure) -> CdcError:
    return KafkaUnavailable(f"refused: {failure.error} in {failure.commit_lsn}")

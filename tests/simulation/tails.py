"""What a new session reads of the topics: everything that consumers can see at that moment."""

from tests.memory import MemoryTail
from tests.simulation.kafka import SimKafka
from tests.simulation.oracle import DEAD_LETTERS


class SimTails:
    """The shape of `cdc.delivery.deduplication.Tails`."""

    def __init__(self, kafka: SimKafka, stream: str, confirmed: int) -> None:
        self._kafka = kafka
        self._stream = stream
        self._confirmed = confirmed
        self._asked: set[str] = set()
        self._read: dict[str, MemoryTail] = {}

    def ask(self, topic: str, since: int, /) -> MemoryTail | None:  # noqa: ARG002 - nothing is searched for by time here
        if topic not in self._asked:
            world = self._kafka.world
            world.enter()
            self._asked.add(topic)
            world.at(self._kafka.latency * self._kafka.random.random(), self._begin, topic)
            world.leave()
        return self._read.get(topic)

    def forget(self) -> None:
        for tail in self._read.values():
            tail.ids.clear()

    def _begin(self, topic: str) -> None:
        kafka = self._kafka
        busy = max(kafka.available(kafka.log((topic, number))) for number in range(kafka.partitions))
        if busy:
            kafka.world.at(busy + 0.01, self._begin, topic)
            return
        tail = MemoryTail(1 if topic == DEAD_LETTERS else kafka.partitions)
        for number, record in kafka.seen.get(topic, ()):
            headers = dict(record.headers)
            stream, commit_lsn, index = str(headers["cdc-position"]).split("-")
            if stream != self._stream:
                continue
            tail.numbers[number] = max(tail.sequence(number), int(str(headers.get("cdc-sequence", 0))))
            if int(commit_lsn, 16) >= self._confirmed:
                tail.ids[number, int(commit_lsn, 16), int(index, 16)] = str(headers["id"])
        self._read[topic] = tail

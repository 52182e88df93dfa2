"""Events that are committed in Kafka, as far as the traffic proves it. Pure code, called by the proxies per message.

A record outside of transactions counts when a broker has acknowledged it. One in a transaction counts when that is
proven to be committed: by an answer to EndTxn, or, where the answer never came, by a read_committed reader that is
given any batch of it. Nothing else proves it: neither a request to commit, nor what a position record claims.

What this cannot see: whether brokers that said so have lost it again.
"""

from tests.torture.kafka_batches import Batch, Position, Producer
from tests.torture.watch import Watch


class Transaction:
    """A Kafka transaction of unknown outcome."""

    __slots__ = ("batches", "is_over", "positions")

    def __init__(self) -> None:
        self.positions: list[Position] = []  # of events that brokers have acknowledged
        self.batches: list[bytes] = []  # their identities, and those of batches without events
        self.is_over = False


class Commits:
    """The Kafka transactions of all producers."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._open: dict[Producer, Transaction] = {}  # a producer that is fenced never uses its epoch again
        self._undecided: dict[bytes, Transaction] = {}  # by the identity of each batch
        self.committed = 0
        self.aborted = 0
        self.read_back = 0  # committed, known only because a consumer read it

    def acknowledge(self, batch: Batch) -> None:
        """A broker has a batch, and the publisher is about to hear of it."""
        if not batch.is_transactional:
            self._count(batch.positions)
            return
        transaction = self._open.get(batch.producer)
        if transaction is None or transaction.is_over:
            transaction = self._open[batch.producer] = Transaction()
        transaction.positions += batch.positions
        transaction.batches.append(batch.identity)
        self._undecided[batch.identity] = transaction

    def ending(self, producer: Producer) -> Transaction | None:
        """A producer asks for the end of its transaction, which this is."""
        return self._open.get(producer)

    def ended(self, producer: Producer, transaction: Transaction, *, committed: bool) -> None:
        """The broker has done what it was asked for, and the publisher is about to hear of it."""
        if self._open.get(producer) is transaction:
            del self._open[producer]
        if not transaction.is_over:
            self._decide(transaction, committed=committed)

    def read(self, batch: Batch) -> None:
        """A reader is about to be given a batch that is there for good."""
        self._count(batch.positions)
        if transaction := self._undecided.get(batch.identity):
            self.read_back += 1
            self._decide(transaction, committed=True)

    def _decide(self, transaction: Transaction, *, committed: bool) -> None:
        transaction.is_over = True
        for identity in transaction.batches:
            self._undecided.pop(identity, None)
        if committed:
            self.committed += 1
            self._count(transaction.positions)
        else:
            self.aborted += 1

    def _count(self, positions: list[Position]) -> None:
        for position in positions:
            self._watch.acknowledge(*position)

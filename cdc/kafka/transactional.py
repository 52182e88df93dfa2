"""Decides about the Kafka transactions of a session: what each takes, when it ends, and what is reported.

`cdc.kafka.transactional_producer` carries these decisions out with the client library.

| situation                              | decision                                                                   |
|----------------------------------------|----------------------------------------------------------------------------|
| the position was sent                  | nothing more is taken; once all records are delivered, commit              |
| a record of the transaction is refused | report it; those that are purged because of it are not reported            |
| the transaction has failed             | commit, which fails and names the error; the session ends                  |
| the commit has succeeded               | report all records                                                         |
| the commit has failed, or is unknown   | report nothing: the next session ends the transaction, reads the position  |
| the session ends                       | abort the open transaction, unless a commit may have been requested        |
"""

from enum import Enum
from typing import Final

from cdc.kafka.first_records import Firsts, Target
from cdc.records.record import Delivered, Record

_ANYWHERE: Final = Target(-1, first=False, partition=-1)


class Step(Enum):
    """What a producer does next."""

    POLL = "wait for errors"
    FLUSH = "deliver the queued records, and look whether the transaction has failed"
    COMMIT = "start to commit"
    WAIT = "wait for the commit"


class Transactions:
    """The transactions of one producer, one after the other; each ends with a record of the topic `positions`."""

    def __init__(self, positions: str, firsts: Firsts) -> None:
        self.reports: list[Delivered] = []  # of the transaction's records
        self.is_open = False
        self.failed = False
        self.committing = False
        self._positions = positions
        self._firsts = firsts
        self._ending = False  # the position was sent

    @property
    def takes(self) -> bool:
        """Whether the transaction takes more records."""
        return not self._ending

    def place(self, record: Record) -> Target | None:
        """See `Firsts.place`. A record of the position is alone in its transaction, and its topic is never proven."""
        return _ANYWHERE if record.topic == self._positions else self._firsts.place(record)

    def sent(self, topic: str, place: Target) -> bool:
        """Note a record of a topic that is not proven; return whether it is the last one of the transaction."""
        if place.first:
            self._firsts.sent(topic, place.number)
        self._ending = topic == self._positions
        return self._ending

    def step(self, queued: int) -> Step:
        """Return what to do while so many records are queued or in flight."""
        if self.committing:
            return Step.WAIT
        if self.failed:
            return Step.COMMIT
        if not self._ending and not self._firsts.waiting:
            return Step.POLL
        if queued:
            return Step.FLUSH
        if self._ending:  # and no report was an error
            return Step.COMMIT
        self._firsts.all_delivered()
        return Step.POLL

    @staticmethod
    def repeats(*, retriable: bool, abandoned: bool) -> bool:
        """Return whether a commit that has failed is tried again; `abandoned`: the session has ended."""
        return retriable and not abandoned

    def committed(self) -> list[Delivered]:
        """Note that the commit has succeeded; return the reports of its records, all of which are delivered."""
        self.is_open = self._ending = False
        if self._firsts.waiting:
            self._firsts.all_delivered()
        reports, self.reports = self.reports, []
        return reports

    @property
    def aborts(self) -> bool:
        """Whether the transaction is aborted when the session ends, so that consumers need not wait for its end."""
        return self.is_open and not self.committing

"""Which partitions an instance holds, as Kafka's group coordinator assigns them.

*Revoked*: another instance gets the partition, so its units are drained. *Lost*: the coordinator or the topic is away,
and no other instance may know more, so units continue until the next assignment says otherwise. When the topic is
deleted, the group may revoke everything, which is lost as well: a revocation counts once the topic is known to be the
same.
"""

from collections.abc import Iterable


class Placement:
    """The partitions of one instance."""

    def __init__(self) -> None:
        self.joined = False  # there was an assignment
        self.assigned: set[int] = set()
        self.lost: set[int] = set()
        self.doubtful: set[int] = set()  # revoked, and it is not known yet why
        self.revocations = 0

    @property
    def held(self) -> set[int]:
        """The partitions whose units run here."""
        return self.assigned | self.lost | self.doubtful

    def assign(self, partitions: Iterable[int]) -> None:
        """Take an assignment: what was lost and is not in it belongs to others."""
        self.joined = True
        self.assigned |= {*partitions}
        self.doubtful -= self.assigned
        self.lost.clear()

    def revoke(self, partitions: Iterable[int]) -> None:
        """Take a revocation."""
        revoked = {*partitions}
        self.revocations += 1
        self.assigned -= revoked
        self.doubtful |= revoked

    def lose(self, partitions: Iterable[int]) -> None:
        """Take the loss of the group."""
        gone = {*partitions} | self.assigned
        self.assigned -= gone
        self.lost |= gone

    def topic(self, *, same: bool) -> None:
        """Take what is known of the topic since the last revocation: it is the same, or away or another one."""
        if not same:
            self.lost |= self.doubtful
        self.doubtful.clear()

    def give_up(self, partitions: Iterable[int]) -> None:
        """Leave lost partitions to others."""
        self.lost -= {*partitions}

"""The prefixes of logical messages: which one marks events, and how many messages had another.

`pg_logical_emit_message` may be called by any program, and a publication does not filter its messages.
"""

import logging
from collections import Counter
from typing import Final

from cdc.replication.messages import LogicalMessage

log = logging.getLogger(__name__)

MOST: Final = 100
"""Prefixes that are counted each on its own."""
OTHERS: Final = "(others)"
"""What stands for the prefixes beyond them."""
OWN: Final = "cdc-publisher"
"""The prefix of messages by which commands of the publisher write a record into the WAL: they are not counted."""

_LONGEST: Final = 63  # characters that are kept of a prefix, which may be of any length


class Prefixes:
    """Recognises the messages that are events: those of `wanted`, exactly; without it there are none.

    One object lives as long as the process, so each other prefix is logged once.
    """

    def __init__(self, wanted: str | None = None) -> None:
        self.wanted = wanted
        self.others: Counter[str] = Counter()
        """How many messages of other prefixes were passed over."""

    def marks(self, message: LogicalMessage) -> bool:
        """Return whether a message is an event, and count it if it is none."""
        if message.prefix == self.wanted:
            return True
        if self.wanted is not None and message.prefix != OWN:
            self._pass_over(message.prefix)
        return False

    def _pass_over(self, prefix: str) -> None:
        name = prefix if len(prefix) <= _LONGEST else f"{prefix[:_LONGEST]}…"
        if name not in self.others:
            if len(self.others) >= MOST:
                self.others[OTHERS] += 1
                return
            log.info(
                "messages of the prefix %r are no events, and are passed over",
                name,
                extra={"event": "messages_passed_over", "prefix": name},
            )
        self.others[name] += 1

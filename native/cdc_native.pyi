"""The accelerator of cdc-publisher: see README.md beside this file.

`cdc/records/fastpath/layout.py` says what is expected of it.
"""

from cdc.records.fastpath.layout import Layout
from cdc.records.record import Delivered, Sendable
from cdc.records.router import Route

__version__: str

def encode(plan: bytes, payload: bytes, /) -> bytes | None:
    """The Avro body of a JSON text by a plan of `cdc.avro.compiled.plan`; None when either is declined."""

class Runs:
    """Takes runs of plain frames of one table, or of messages of one shape, and stops before the first that is not.

    A layout that is not understood takes nothing.
    """

    def __new__(cls, layout: Layout, /) -> Runs: ...
    def learn(self, event_type: bytes, topic_cells: tuple[bytes, ...], route: Route, room: int, /) -> None:
        """Where rows go of which the type's cell and the topic's cells have these bytes.

        `room`: a record is taken when four times its frame and its value are not more than this, in bytes.
        """

    def take(
        self, frames: list[bytes], at: int, prefix: str, index: int, timestamp: int, report: Delivered, /
    ) -> list[Sendable]:
        """A record for each of `frames[at:]`, as far as they are plain; never raises for what they hold.

        `index` is the first record's in its transaction, `prefix` what stands before it in positions, `timestamp` in
        milliseconds. What a route's `encode` raises that is no `Exception`, such as KeyboardInterrupt, is passed on.
        """

    def forget(self) -> None:
        """Drop what was learned."""

"""Runs: consecutive rows that are plain, made into records at once.

The general road (pgoutput, transactions, outbox, encoding) takes each row through every step, and alone judges and
refuses. Where it has led once, it leaves a route: type and topic, encoder, and what stands before the body. Rows of the
same shape on a known route need none of the steps, only their result; whatever is not plain is declined, and goes the
general road. So two things can be exchanged without anybody noticing but by the speed: the code that
`cdc.records.fastpath.generated` writes for a table, and the native accelerator.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from cdc.outbox.events import Event, Outbox, trace_columns
from cdc.records.encoding import Encoding, Topics
from cdc.records.record import Delivered, Sendable
from cdc.replication import values as cells
from cdc.replication.messages import Relation
from cdc.replication.settlement import Transaction
from cdc.replication.transactions import Row, Transactions

_KNOWN: Final = 10_000  # routes: a topic template may hold a column of many values
_BINARY: Final = b"b"

_BINARY_CELLS: Final = {
    cells.BOOL: "bool",
    cells.INT2: "integer",
    cells.INT4: "integer",
    cells.INT8: "integer",
    cells.UUID: "uuid",
    cells.JSONB: "jsonb",
    cells.BYTEA: "bytea",
    **dict.fromkeys(cells.SAME_AS_TEXT, "text"),
}


class Layout(NamedTuple):
    """How the rows of one relation are read. Places are numbers of columns, from 0."""

    relation: int  # oid
    binary: bool  # the format of cells that are needed
    cells: tuple[str, ...]
    """How each is read: text, uuid, integer, bool, bool-text, jsonb, bytea; empty when nobody needs it."""
    id: int
    key: int
    type: int
    payload: int
    topic: tuple[int, ...]  # the cells that decide about the topic
    headers: tuple[tuple[str, int], ...]  # name and place; a null is left out
    avro: bool  # the payload is Avro already
    tombstones: bool  # an empty payload means something


class Route(NamedTuple):
    """What is the same for all events of one type and topic."""

    topic: str
    type: str
    header: bytes  # stands before each body
    encode: Callable[[bytes, bytes], bytes] | None  # JSON text and header to value; None when the payload is Avro
    plan: bytes | None  # of the same encoder, for the accelerator
    largest: int  # bytes of a record batch that the topic takes

    def spare(self, layout: Layout) -> int:
        """A record is far from `largest` when four times its frame and its value are less than this, in bytes."""
        return self.largest - 512 - sum(len(name) + 1 for name, _ in layout.headers) * 8


class Runs(Protocol):
    """Makes records of the rows of one layout."""

    def learn(self, event_type: bytes, topic_cells: tuple[bytes, ...], route: Route, /) -> None:
        """From now on rows with these cells take this route."""
        ...

    def take(
        self, frames: list[bytes], at: int, prefix: str, index: int, timestamp: int, report: Delivered, /
    ) -> list[Sendable]:
        """The records of `frames[at:]`, one for each, up to the first frame that is no plain row on a known route.

        `prefix` is the position's text before the index, `index` that of the first row, `timestamp` in milliseconds.
        Raises nothing because of what a frame holds.
        """
        ...

    def forget(self) -> None:
        """There are no routes any more."""
        ...


Make = Callable[[Layout], Runs]


class Taken(NamedTuple):
    """What was made of plain rows."""

    records: list[Sendable]
    at: int  # the first frame that was not read
    transaction: Transaction  # of the last of them


class Express:
    """The runs of one session, on the routes that its rows have taken before."""

    def __init__(
        self, transactions: Transactions, outbox: Outbox, encoding: Encoding, topics: Topics, make: Make
    ) -> None:
        self._transactions = transactions
        self._outbox = outbox
        self._encoding = encoding
        self._topics = topics
        self._make = make
        self._relation: Relation | None = None
        self._binary = False
        self._layout: Layout | None = None
        self._runs: Runs | None = None
        self._known: set[tuple[bytes, tuple[bytes, ...]]] = set()
        self._changes = topics.changes
        self._prefix = f"{outbox.stream}-%016X-"  # of positions

    def take(self, frames: list[bytes], at: int, transaction: Transaction, *, across: bool) -> Taken | None:
        """The records of plain rows from `frames[at]` on, which belong to the open `transaction`; None: of no row.

        With `across` it goes on with the rows of the next transaction, where one follows at once: that is 0.7 us less
        for each, and 1.3 less in plain Python. The transactions have counted their rows.
        """
        if self._runs is None or self._relation is None:
            return None
        if self._transactions.outbox.get(self._relation.oid) is not self._relation:
            return None  # the table was changed: its frames look the same and mean something else
        if self._topics.changes != self._changes:
            self._forget(self._runs)
            return None
        take, turn, records = self._runs.take, self._transactions.turn, list[Sendable]()
        following: Transaction | None = transaction
        while following is not None:
            prefix, index = self._prefix % following.commit_lsn, following.events
            run = take(frames, at, prefix, index, following.timestamp, following.report)
            if not run:
                break
            transaction = following
            transaction.add_events(len(run))
            records += run
            at += len(run)
            following = turn(frames, at) if across else None
            if following is not None:
                at += 2
        return Taken(records, at, transaction) if records else None

    def learn(self, row: Row, event: Event) -> None:
        """A row has become the record of its event: others like it may take the same route."""
        formats, values = row.data
        if row.relation is not self._relation or (_BINARY in formats) != self._binary:
            self._survey(row.relation, binary=_BINARY in formats)
        if self._layout is None or self._runs is None or event.payload is None:
            return
        known = values[self._layout.type], tuple([values[place] for place in self._layout.topic])
        route = None if known in self._known else self._route(event)
        if route:
            if len(self._known) >= _KNOWN:
                self._forget(self._runs)
            self._known.add(known)
            self._runs.learn(*known, route)

    def _route(self, event: Event) -> Route | None:
        largest = self._topics.largest(event.topic)
        found = self._encoding.route(event)
        if largest is None or found is None:
            return None
        encoder, header = found
        if encoder is None:
            return Route(event.topic, event.type, header, None, None, largest)
        return Route(event.topic, event.type, header, encoder.encode, encoder.plan, largest)

    def _survey(self, relation: Relation, *, binary: bool) -> None:
        self._relation, self._binary = relation, binary
        self._known.clear()
        self._layout = layout(relation, self._outbox, binary=binary)
        self._runs = self._make(self._layout) if self._layout else None

    def _forget(self, runs: Runs) -> None:
        runs.forget()
        self._known.clear()
        self._changes = self._topics.changes


def layout(relation: Relation, outbox: Outbox, *, binary: bool) -> Layout | None:
    """How rows of a relation are read; None when only the general road can."""
    columns = outbox.columns
    places = {column.name: place for place, column in enumerate(relation.columns)}
    present = list(places)
    needed = columns.needed(present, outbox.template, outbox.headers)
    if any(name not in places for name in needed):
        return None
    read = [""] * len(present)
    for name in needed:
        place = places[name]
        how = _how(relation.columns[place].type_oid, binary=binary)
        if how is None:
            return None
        read[place] = how
    key, payload = places[columns.key], places[columns.payload]
    if read[payload] not in ("text", "jsonb", "bytea"):
        return None
    if not binary and relation.columns[key].type_oid not in cells.SAME_AS_TEXT:
        return None
    # The aggregate is asked for in each row, whether the topic depends on it or not.
    topic = dict.fromkeys([columns.aggregate, *(columns.resolve(name, present) for name in outbox.template.columns)])
    headers = [*outbox.headers, *trace_columns(present, outbox.headers)]
    return Layout(
        relation.oid,
        binary,
        tuple(read),
        places[columns.id],
        key,
        places[columns.type],
        payload,
        tuple([places[name] for name in topic]),
        tuple([(name, places[name]) for name in headers]),
        read[payload] == "bytea",
        outbox.tombstones,
    )


def _how(type_oid: int, *, binary: bool) -> str | None:
    if binary:
        return _BINARY_CELLS.get(type_oid)
    if type_oid == cells.BYTEA:
        return None
    return "bool-text" if type_oid == cells.BOOL else "text"

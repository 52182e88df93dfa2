"""Random transactions, deliveries in any order, keepalives anywhere: what the ledger may confirm.

An `History` is what a server and a Kafka may do; `follow` plays it against a ledger and checks every step against
a model that knows no cleverness. The same histories must find two classical bugs, or they prove nothing.
"""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from cdc.lsn import LSN
from cdc.replication.settlement import Ledger, Transaction
from tests.examples import examples

SLOT = 0xFFFF_FF00  # a little below the 32-bit boundary (A24)

# What happens next: begin, row, commit, keepalive (with its advance), deliver (which of the undelivered) or settle.
Step = tuple[str, int]
History = list[Step]

steps = st.one_of(
    st.tuples(st.sampled_from(["begin", "row", "row", "commit"]), st.integers(1, 64)),
    st.tuples(st.just("deliver"), st.integers(0, 1000)),
    st.tuples(st.just("keepalive"), st.integers(-200, 200)),
    st.tuples(st.just("settle"), st.just(0)),
)
histories = st.lists(steps, max_size=60)


class Model:
    """The truth: every transaction with its end and its undelivered events, in commit order."""

    def __init__(self) -> None:
        self.wal = SLOT  # how far the server has sent
        self.known: list[Transaction] = []
        self.ends: list[int | None] = []
        self.waiting: list[int] = []  # for each undelivered event, the number of its transaction
        self.keepalives: list[tuple[int, int]] = []  # (LSN, transactions begun before it)

    def limit(self) -> int:
        """No confirmation may reach the end of the oldest transaction that is not settled."""
        for number, end in enumerate(self.ends):
            if end is None or number in self.waiting:
                return int(self.known[number].commit_lsn)
        return 1 << 64

    def idle(self) -> bool:
        return not self.waiting and None not in self.ends


class Violation(AssertionError):
    """The ledger broke the promise."""


def follow(history: History, ledger: Ledger) -> None:
    """Play a history. Raises Violation when the ledger confirms too much, goes back, or stays behind at the end."""
    model = Model()
    confirmed = SLOT
    for step in [*history, ("commit", 8)]:
        play(step, ledger, model)
        confirmed = check(ledger, model, confirmed)
    while model.waiting:
        play(("deliver", len(model.waiting) // 2), ledger, model)
        confirmed = check(ledger, model, confirmed)
    last = max([SLOT, *(end for end in model.ends if end), *(lsn for lsn, _ in model.keepalives)])
    if confirmed != last:
        raise Violation(f"everything is settled, but {LSN(confirmed)} is confirmed and not {LSN(last)}")


def play(step: Step, ledger: Ledger, model: Model) -> None:
    kind, amount = step
    inside = bool(model.ends) and model.ends[-1] is None
    if kind == "begin" and not inside:
        model.wal += amount
        model.known.append(ledger.begin(LSN(model.wal), 0))
        model.ends.append(None)
    elif kind == "row" and inside:
        assert model.known[-1].add_event() == model.known[-1].events - 1
        model.waiting.append(len(model.known) - 1)
    elif kind == "commit" and inside:
        commit_lsn = model.wal
        model.wal += amount
        model.ends[-1] = model.wal
        ledger.commit(LSN(commit_lsn), LSN(model.wal))
    elif kind == "deliver" and model.waiting:
        model.known[model.waiting.pop(amount % len(model.waiting))].report(None, None)
    elif kind == "keepalive":
        if inside:
            ledger.idle_at(LSN(model.wal + 10_000))  # the server is ahead, and we have not read that far
        else:
            model.wal += max(0, amount)
            lsn = LSN(model.wal + min(0, amount))
            model.keepalives.append((lsn, len(model.known)))
            ledger.idle_at(lsn)


def check(ledger: Ledger, model: Model, before: int) -> int:
    confirmed = ledger.settle()
    if confirmed < before:
        raise Violation(f"went back from {LSN(before)} to {confirmed}")
    if confirmed > min(model.limit(), model.wal):
        raise Violation(f"{confirmed} is past the undelivered transaction {LSN(model.limit())}")
    allowed = {SLOT, *(end for end in model.ends if end), *(lsn for lsn, _ in model.keepalives)}
    if confirmed not in allowed:
        raise Violation(f"{confirmed} is no end of a transaction and no keepalive")
    if ledger.undelivered != len(model.waiting):
        raise Violation(f"{ledger.undelivered} events count as undelivered, not {len(model.waiting)}")
    if model.idle() != (ledger.oldest is None):
        raise Violation(f"{ledger.oldest} counts as the oldest in flight")
    return confirmed


@given(histories)
@examples(1000)
def test_no_interleaving_confirms_an_undelivered_event_goes_back_or_stays_behind_a1_a2_a10_a11(
    history: History,
) -> None:
    follow(history, Ledger(SLOT))


class MaximumRule(Ledger):
    """The bug of A2: the last callback wins."""

    def settle(self) -> LSN:
        for transaction in list(self._transactions):
            if transaction.end_lsn is not None and not transaction.undelivered:
                self._transactions.remove(transaction)
                self.confirmed = max(self.confirmed, transaction.end_lsn)
        return self.confirmed


class ConfirmsKeepalives(Ledger):
    """The bug of A1 and A10: a keepalive moves the slot past what is in flight."""

    def idle_at(self, wal_end: LSN) -> None:
        self.confirmed = max(self.confirmed, wal_end)


class ConfirmsCommits(Ledger):
    """The bug of A3: the commit's own LSN, not its end."""

    def commit(self, commit_lsn: int, end_lsn: LSN) -> None:
        super().commit(commit_lsn, end_lsn)
        self._transactions[-1].end_lsn = LSN(commit_lsn)


class IgnoresOpenTransaction(Ledger):
    """The bug of A10: a keepalive between Begin and Commit counts."""

    def idle_at(self, wal_end: LSN) -> None:
        opened, self.open = self.open, None
        super().idle_at(wal_end)
        self.open = opened


def violates(ledger: Callable[[int], Ledger]) -> Callable[[History], bool]:
    def breaks(history: History) -> bool:
        try:
            follow(history, ledger(SLOT))
        except Violation:
            return True
        return False

    return breaks


@pytest.mark.parametrize("mutant", [MaximumRule, ConfirmsKeepalives, ConfirmsCommits, IgnoresOpenTransaction])
def test_the_interleavings_find_the_classical_bugs(mutant: type[Ledger]) -> None:
    try:
        # The same histories each time: `find` alone would draw others.
        few = settings(max_examples=10_000, phases=[Phase.generate])
        find(histories, violates(mutant), settings=few, random=Random(2))
    except NoSuchExample:
        pytest.fail(f"no history caught {mutant.__name__}: {mutant.__doc__}")

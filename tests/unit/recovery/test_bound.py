"""The bound of a recovery: which horizon counts, and what counts without one."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.lsn import LSN
from cdc.recovery.bound import (
    BEGINNING,
    Bound,
    BoundFacts,
    BoundKind,
    candidates,
    choose,
    since,
    widened,
)
from cdc.replication.horizon import Horizon, Horizons, remembered

NOON = 1_785_585_600.0
FACTS = BoundFacts(horizons=(), timeline=1, timelines={}, wal_end=LSN(1000), next_xid=(1 << 32) + 500)


def horizon(lsn: int, timeline: int = 1) -> Horizon:
    return Horizon(lsn * 10, LSN(lsn), NOON + lsn, timeline, updates=3, deletes=4)


def test_the_newest_horizon_that_counts_is_the_bound() -> None:
    facts = replace(FACTS, horizons=(horizon(100), horizon(900)), catalog_xmin=7, confirmed_commit=NOON, commits=True)
    assert choose(facts) == Bound(kind=BoundKind.HORIZON, xid=9000, time=NOON + 900, lsn=LSN(900), updates=3, deletes=4)


def test_a_horizon_of_another_timeline_counts_up_to_the_switch() -> None:
    facts = replace(FACTS, horizons=(horizon(100), horizon(900)), timeline=2)
    assert choose(facts) is None
    assert (choose(replace(facts, timelines={1: LSN(900)})) or BEGINNING).lsn == 900
    assert (choose(replace(facts, timelines={1: LSN(899)})) or BEGINNING).lsn == 100


def test_without_a_horizon_the_lost_slot_says_how_far_it_was() -> None:
    facts = replace(FACTS, catalog_xmin=499, confirmed_commit=NOON, commits=True)
    assert choose(facts) == Bound(kind=BoundKind.CATALOG_XMIN, xid=(1 << 32) + 499)
    assert choose(replace(facts, catalog_xmin=500)) == Bound(kind=BoundKind.CATALOG_XMIN, xid=500)


def test_without_both_the_last_confirmed_commit_counts_less_ten_minutes() -> None:
    facts = replace(FACTS, confirmed_commit=NOON, commits=True)
    assert choose(facts) == Bound(kind=BoundKind.COMMITTED, time=NOON - 600)
    assert choose(replace(facts, commits=False)) is None
    assert choose(replace(facts, confirmed_commit=None)) is None


@given(st.integers(3, 2**45), st.integers(1, 2**45))
def test_an_id_is_widened_to_the_largest_assigned_one(xid: int, ahead: int) -> None:
    found = widened(xid & 0xFFFFFFFF, xid + ahead)
    assert found & 0xFFFFFFFF == xid & 0xFFFFFFFF
    assert xid <= found < xid + ahead
    assert found == xid or ahead > 1 << 32


@pytest.mark.parametrize(
    "bound", [Bound.of(horizon(5)), Bound(kind=BoundKind.CATALOG_XMIN, xid=2**40), since(NOON), BEGINNING], ids=str
)
def test_a_bound_survives_its_record(bound: Bound) -> None:
    assert Bound.read(bound.plain()) == bound


def test_a_bound_names_itself() -> None:
    assert str(Bound.of(horizon(5))) == "the horizon of 2026-08-01T12:00:05+00:00, at LSN 0/5"
    assert str(since(NOON)) == "the given time, 2026-08-01T12:00:00+00:00"


@pytest.mark.parametrize(
    ("bound", "age", "commits", "parts", "values"),
    [
        (Bound.of(horizon(5)), None, True, ["not (", "{bound_xid}"], {"bound_xid": 50}),
        (
            Bound.of(horizon(5)),
            "created_at",
            False,
            ["not (", '"created_at"::timestamptz >= to_timestamp({bound_day})'],
            {"bound_xid": 50, "bound_day": NOON + 5 - 86_400},
        ),
        (Bound(kind=BoundKind.CATALOG_XMIN, xid=7), "created_at", True, ["not ("], {"bound_xid": 7}),
        (since(NOON), None, True, ["pg_xact_commit_timestamp(xmin)"], {"bound_time": NOON}),
        (
            since(NOON),
            "at",
            False,
            ['coalesce("at"::timestamptz) >= to_timestamp({bound_time})'],
            {"bound_time": NOON, "bound_day": NOON - 86_400},
        ),
        (since(NOON), None, False, ["(true)"], {}),
        (BEGINNING, "created_at", True, ["(true)"], {}),
    ],
)
def test_the_condition_has_what_the_bound_and_the_table_know(
    bound: Bound, age: str | None, commits: bool, parts: list[str], values: dict[str, object]
) -> None:
    found = candidates(bound, age, commits=commits)
    text = found.condition.as_string().replace("%(", "{").replace(")s", "}")
    for part in parts:
        assert part in text
    assert dict(found.values) == values
    assert text.count("{") == len(values)


@dataclass
class Server:
    """A model of a server: transactions with ids and LSNs of their commits, on timelines that part."""

    timeline: int = 1
    next_xid: int = 3
    lsn: int = 0
    open: list[int] = field(default_factory=list)
    committed: dict[int, int] = field(default_factory=dict)  # LSN by id, of what this server has
    ends: dict[int, LSN] = field(default_factory=dict)
    pending: Horizons = field(default_factory=Horizons)
    record: tuple[Horizon, ...] = ()
    confirmed: int = 0

    def horizon(self) -> None:
        self.pending.add(Horizon(min([*self.open, self.next_xid]), LSN(self.lsn), float(self.lsn), self.timeline))

    def begin(self) -> None:
        self.open.append(self.next_xid)
        self.next_xid += 1

    def commit(self, which: int) -> None:
        if self.open:
            self.lsn += 1
            self.committed[self.open.pop(which % len(self.open))] = self.lsn

    def confirm(self, behind: int) -> None:
        self.confirmed = max(self.confirmed, self.lsn - behind)
        self.record = remembered((*self.record, *self.pending.confirmed(LSN(self.confirmed))))
        self.pending.pass_by(LSN(self.confirmed))

    def promote(self, behind: int) -> None:
        """A standby that lacks the last WAL goes on: open transactions end, ids and LSNs are assigned again."""
        self.lsn = max(0, self.lsn - behind)
        self.ends = {
            **{old: end for old, end in self.ends.items() if end <= self.lsn},
            self.timeline: LSN(self.lsn),
        }
        self.timeline += 1
        self.committed = {xid: lsn for xid, lsn in self.committed.items() if lsn <= self.lsn}
        self.open = []
        self.next_xid = max([*self.committed, 2]) + 1
        self.pending = Horizons()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["begin", "horizon"])),
        st.tuples(st.just("commit"), st.integers(0, 5)),
        st.tuples(st.just("confirm"), st.integers(0, 4)),
        st.tuples(st.just("promote"), st.integers(0, 6)),
    ),
    max_size=60,
)


@settings(max_examples=400)
@given(STEPS)
def test_no_unpublished_row_is_below_the_bound(steps: list[tuple[str, int]]) -> None:
    server = Server()
    published: set[tuple[int, int]] = set()  # ids and LSNs
    for name, *arguments in steps:
        getattr(server, name)(*arguments)
        if name == "confirm":
            published |= {(xid, lsn) for xid, lsn in server.committed.items() if lsn <= server.confirmed}
        if name == "promote":
            server.confirmed = min(server.confirmed, server.lsn)
        facts = BoundFacts(
            horizons=server.record,
            timeline=server.timeline,
            timelines=server.ends,
            wal_end=LSN(server.lsn),
            next_xid=server.next_xid,
        )
        if (bound := choose(facts)) and bound.xid is not None:
            below = {(xid, lsn) for xid, lsn in server.committed.items() if xid < bound.xid}
            assert below <= published


def test_statistics_that_restarted_since_the_bound_leave_unknown_whether_rows_were_updated() -> None:
    bound = Bound(kind=BoundKind.HORIZON, xid=9000, counted=NOON, updates=0, deletes=7)
    assert not bound.recounted(NOON).updated(0)
    restarted = bound.recounted(NOON + 1)
    assert restarted.updated(0)
    assert restarted.deletes == 0
    assert not replace(bound, counted=None).recounted(NOON).updated(0)  # of an earlier version
    assert Bound.read(bound.plain()) == bound

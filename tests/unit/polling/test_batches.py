"""Each row is in one batch, whatever transactions do: the conditions are evaluated over random histories."""

from hypothesis import given
from hypothesis import strategies as st

from cdc.polling import batches
from cdc.polling.snapshots import NOTHING, Snapshot
from tests.simulation.polling.database import meets


class Server:
    """Ids of transactions, and which of them run."""

    def __init__(self) -> None:
        self.next = 3
        self.running: set[int] = set()
        self.committed: set[int] = {1}  # rows of before

    def snapshot(self) -> Snapshot:
        """As PostgreSQL makes it: xmax is behind the last transaction that ended."""
        ended = [xid for xid in range(3, self.next) if xid not in self.running]
        xmax = max(ended, default=2) + 1
        running = tuple(xid for xid in sorted(self.running) if xid < xmax)
        return Snapshot(min(running, default=xmax), xmax, running)

    def sees(self, xid: int) -> bool:
        return xid in self.committed


STEPS = st.lists(st.tuples(st.sampled_from(["begin", "commit", "abort", "tick"]), st.integers(0, 9)), max_size=80)


@given(steps=STEPS)
def test_each_committed_row_is_in_exactly_one_batch(steps: list[tuple[str, int]]) -> None:
    server, last = Server(), NOTHING
    seen: dict[int, int] = {}
    for step, which in [*steps, ("tick", 0)]:
        if step == "begin":
            server.running.add(server.next)
            server.next += 1
        elif step == "tick":
            now = server.snapshot()
            committed = set(server.committed)
            for xid in committed:
                times = sum(meets(condition, xid) for condition in batches.between(last, now))
                assert times <= 1
                seen[xid] = seen.get(xid, 0) + times
            assert {xid for xid, times in seen.items() if times} == committed
            last = now
        elif server.running:
            xid = sorted(server.running)[which % len(server.running)]
            server.running.remove(xid)
            if step == "commit":
                server.committed.add(xid)
    assert set(seen.values()) <= {1}


@given(steps=STEPS)
def test_what_is_beyond_a_snapshot_is_all_that_it_does_not_see(steps: list[tuple[str, int]]) -> None:
    server = Server()
    taken = NOTHING
    for step, which in steps:
        if step == "begin":
            server.running.add(server.next)
            server.next += 1
        elif step == "tick":
            taken = server.snapshot()
        elif server.running:
            server.running.remove(sorted(server.running)[which % len(server.running)])
    for xid in {1, *range(3, server.next)}:
        assert sum(meets(condition, xid) for condition in batches.beyond(taken)) == (not taken.sees(xid))


def test_only_transactions_that_ended_are_asked_for_by_their_ids() -> None:
    earlier = Snapshot(10, 20, (10, 12, 15))
    later = Snapshot(12, 25, (12, 21))
    assert batches.between(earlier, later) == [
        "t.cdc_tx >= '20' and t.cdc_tx < '25' and pg_catalog.pg_visible_in_snapshot(t.cdc_tx, '12:25:12,21')",
        "t.cdc_tx = any(array['10', '15']::xid8[])",
    ]


def test_a_snapshot_is_written_as_postgresql_writes_it() -> None:
    for text in ("10:20:10,14,15", "10:10:", "1:1:"):
        assert str(Snapshot.parse(text)) == text

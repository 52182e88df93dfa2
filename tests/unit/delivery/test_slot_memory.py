"""How far rows were sent without a slot: when Kafka's record says it, and when the table has to."""

import pytest

from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE, RelayMark, SlotRecord
from cdc.delivery.slot_memory import resumable
from cdc.lsn import LSN
from cdc.polling.progress import Progress
from cdc.polling.snapshots import NOTHING, Snapshot

PROGRESS = Progress(NOTHING, Snapshot(5, 9), until=40, tick=7, xid=8, rows=40)
MARK = RelayMark(1, PROGRESS)


def record(guarantee: str, mark: RelayMark | None = MARK, *, caught_up: bool = True) -> SlotRecord:
    return SlotRecord("relay", 1, "shop", LSN(0), {}, {}, guarantee=guarantee, caught_up=caught_up, relay=mark)


@pytest.mark.parametrize("caught_up", [True, False])
def test_a_record_of_exactly_once_counts_also_while_rows_behind_it_are_compared_by_their_ids(caught_up: bool) -> None:
    """Compaction may remove a record that was sent: an id that is not found does not prove that its row was not."""
    found = record(EXACTLY_ONCE, caught_up=caught_up)
    assert resumable(found, EXACTLY_ONCE, lambda number, xid: (number, xid) == (7, 8)) == PROGRESS


def test_the_table_counts_where_it_was_set_back_or_a_transaction_did_not_write_the_record() -> None:
    assert resumable(None, EXACTLY_ONCE, lambda *_: True) is None
    assert resumable(record(EXACTLY_ONCE), EXACTLY_ONCE, lambda *_: False) is None
    assert resumable(record(EXACTLY_ONCE), AT_LEAST_ONCE, lambda *_: True) is None
    assert resumable(record(AT_LEAST_ONCE), EXACTLY_ONCE, lambda *_: True) is None
    assert resumable(record(EXACTLY_ONCE, RelayMark(1)), EXACTLY_ONCE, lambda *_: True) is None
    assert (
        resumable(record(EXACTLY_ONCE, RelayMark(1, PROGRESS._replace(tick=0))), EXACTLY_ONCE, lambda *_: True) is None
    )

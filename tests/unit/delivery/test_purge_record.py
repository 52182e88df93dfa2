"""The record of purged rows, which a recovery does not miss."""

import pytest

from cdc.delivery.positions import memory
from cdc.delivery.purge_record import PurgeRecord, purge_key


def test_it_counts_the_rows_that_were_purged_since_a_time() -> None:
    record = PurgeRecord().add(10.0, 5, (1,)).add(20.0, 7, (2, 3))
    assert [record.since(moment) for moment in (5.0, 10.0, 15.0, 20.0, 25.0)] == [12, 7, 7, 0, 0]
    assert record.dropped == (1, 2, 3)
    assert PurgeRecord().since(0.0) == 0


def test_it_stays_small_and_counts_no_row_twice() -> None:
    record = PurgeRecord()
    for moment in range(1, 1000):
        record = record.add(float(moment), 1, ())
    assert len(record.purged) <= 100
    assert (record.since(0.0), record.since(1000.0)) == (999, 0)


def test_it_is_read_as_it_was_written_and_beside_a_topic_of_its_name() -> None:
    record = PurgeRecord().add(10.5, 5, (16400,))
    assert PurgeRecord.decode(record.encode()) == record
    with pytest.raises(ValueError, match="not a record of a purge"):
        PurgeRecord.decode(b"[]")
    key = purge_key("1/s").encode()
    assert memory("1/s", [(key, record.encode())]).purge == record
    topic = b'{"version":1,"topic_id":"x","partitions":3}'
    found = memory("1/s", [(key, topic)])
    assert (found.purge, list(found.topics)) == (PurgeRecord(), ["purge"])

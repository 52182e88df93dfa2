"""Partitions of keys, and the rule that the first record of each goes alone."""

from types import SimpleNamespace

import pytest

from cdc.kafka.first_records import FORGET_SECONDS, Firsts
from cdc.records.partitioner import murmur2, partition
from cdc.records.record import Delivered, Record


@pytest.mark.parametrize(
    ("data", "hashed"),
    [  # of Apache Kafka's own tests
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_kafkas(data: bytes, hashed: int) -> None:
    assert murmur2(data) == hashed & 0xFFFFFFFF


MESSAGE = SimpleNamespace(offset=lambda: 0)


class Sent:
    """Records as a sink sends them, and the reports of those that are the first of their partition."""

    def __init__(self, partitions: int | None, partitioner: str = "murmur2_random", *, passing: bool = False) -> None:
        self.firsts = Firsts(lambda _: partitions, 0, partitioner, passing=passing)
        self.places: list[int] = []  # the partitions that the client was told
        self.reported: list[tuple[object, object]] = []
        self.waiting: list[Delivered] = []

    def send(self, key: bytes | None, number: int = -1) -> bool:
        record = Record.to("t", key, b"", 0, [], lambda error, message: self.reported.append((error, message)))
        record = record._replace(partition=number)
        if "t" in self.firsts.proven:
            return True
        place = self.firsts.place(record)
        if place is None:
            return False
        self.places.append(place.partition)
        if place.first:
            self.waiting.append(self.firsts.reporting("t", place.number, record.on_delivery))
            self.firsts.sent("t", place.number)
        return True

    def settle(self, error: object = None, message: object = MESSAGE) -> None:
        for report in self.waiting:
            report(error, message)
        self.waiting.clear()


def keys(count: int, place: int, partitions: int) -> list[bytes]:
    return [key for key in (b"%d" % n for n in range(1000)) if partition(key, partitions) == place][:count]


def test_until_the_first_record_of_a_partition_is_delivered_no_other_goes_there_c6() -> None:
    sent = Sent(3)
    (a, b), (c,) = keys(2, 0, 3), keys(1, 1, 3)
    assert [sent.send(a), sent.send(a), sent.send(b), sent.send(c), sent.send(c)] == [True, False, False, True, False]
    sent.settle()
    assert sent.reported == [(None, MESSAGE)] * 2
    assert [sent.send(key) for key in (a, b, c)] == [True] * 3
    assert sent.waiting == []
    assert sent.firsts.proven == set()
    assert sent.send(keys(1, 2, 3)[0])
    sent.settle()
    assert sent.firsts.proven == {"t"}


def test_a_refused_first_record_proves_nothing_c6() -> None:
    sent = Sent(1)
    assert sent.send(b"k")
    sent.settle("refused")
    assert sent.reported == [("refused", MESSAGE)]
    assert not sent.send(b"k")
    assert sent.firsts.proven == set()


def test_records_without_a_key_go_where_a_first_one_is_wanted_c6() -> None:
    sent = Sent(3)
    assert sent.send(keys(1, 1, 3)[0])
    assert [sent.send(None) for _ in range(3)] == [True, True, False]
    assert sent.places == [-1, 0, 2]
    sent.waiting.pop(1)(None, MESSAGE)
    assert [sent.send(None), sent.send(None)] == [True, True]
    assert sent.places[3:] == [0, 0]
    sent.settle()
    assert sent.firsts.proven == {"t"}


def test_records_without_a_key_have_one_partition_where_the_partitioner_says_so_c6() -> None:
    sent = Sent(3, "murmur2")
    assert [sent.send(None), sent.send(None), sent.send(b"")] == [True, False, False]
    sent.settle()
    assert [sent.send(None), sent.send(b"")] == [True, True]
    assert sent.places == [-1, -1, -1]


def test_a_partition_that_the_record_names_is_kept_c6() -> None:
    sent = Sent(3)
    assert [sent.send(b"k", 1), sent.send(b"k", 1), sent.send(b"k", 2)] == [True, False, True]
    assert sent.places == [1, 2]


def test_a_sink_that_hears_of_refusals_alone_says_when_nothing_is_in_flight_c6() -> None:
    sent = Sent(2)
    (a,), (b,) = keys(1, 0, 2), keys(1, 1, 2)
    assert [sent.send(a), sent.send(a)] == [True, False]
    sent.firsts.all_delivered()
    assert (sent.firsts.waiting, sent.firsts.proven) == (0, set())
    assert [sent.send(a), sent.send(b)] == [True, True]
    sent.firsts.all_delivered()
    assert (sent.firsts.waiting, sent.firsts.proven) == (0, {"t"})


def test_a_topic_of_unknown_partitions_is_proven_by_one_delivery_c6() -> None:
    sent = Sent(None)
    assert [sent.send(b"a"), sent.send(b"b")] == [True, False]
    sent.settle()
    assert sent.firsts.proven == {"t"}


def test_what_brokers_may_have_forgotten_begins_anew_c3_c6() -> None:
    sent = Sent(1)
    sent.send(b"k")
    sent.firsts.forget(FORGET_SECONDS - 1)
    assert not sent.send(b"k")
    sent.settle()
    assert sent.firsts.proven == {"t"}
    sent.firsts.forget(FORGET_SECONDS)
    assert sent.firsts.proven == set()
    assert [sent.send(b"k"), sent.send(b"k")] == [True, False]


def test_where_others_may_pass_a_refused_first_record_the_next_one_is_the_first_c6() -> None:
    sent = Sent(1, passing=True)
    for refusal in ((None, SimpleNamespace(offset=lambda: None)), ("refused", MESSAGE)):
        assert [sent.send(b"k"), sent.send(b"k")] == [True, False]
        sent.settle(*refusal)
        assert sent.firsts.proven == set()
    assert sent.send(b"k")
    sent.settle()
    assert sent.firsts.proven == {"t"}


def test_a_late_report_from_before_is_not_taken_for_one_of_now_c6() -> None:
    sent = Sent(1)
    sent.send(b"k")
    sent.firsts.forget(FORGET_SECONDS)
    old, sent.waiting = sent.waiting, []
    assert sent.send(b"k")
    for report in old:
        report(None, MESSAGE)
    assert not sent.send(b"k")


def test_first_records_wait_until_they_are_reported_whatever_became_of_them() -> None:
    sent = Sent(3)
    for place in range(3):
        sent.send(keys(1, place, 3)[0])
    assert sent.firsts.waiting == 3
    sent.firsts.forget(FORGET_SECONDS)
    sent.settle("refused")
    assert sent.firsts.waiting == 0

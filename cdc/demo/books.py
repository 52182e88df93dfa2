"""The books: what was committed against what the topics hold. Plain arithmetic; one line for each thing promised."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cdc.demo.reader import Arrival
from cdc.demo.tally import Tally
from cdc.lsn import LSN

Money = Mapping[str, Decimal]  # by currency


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the books; `right` is None for a number that others are compared with."""

    what: str
    figure: str
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class Witnesses:
    """What SQL says once the shop is closed: ids and captured money in the table, the slot, the WAL's end."""

    ids: frozenset[str]
    money: Money
    confirmed: LSN
    wal_end: LSN  # just after the last commit


def balance(tally: Tally, witnesses: Witnesses, arrivals: Sequence[Arrival]) -> list[Line]:
    """The lines of the books; they balance when none is wrong."""
    written = tally.ids()
    times = Counter(arrival.event_id for arrival in arrivals)
    duplicates = len(arrivals) - len(times)
    undone = len(tally.undone & times.keys())
    keys = _keys_in_another_order(tally, arrivals)
    several = sum(len(ids) > 1 for ids in tally.per_key.values())
    backwards, partitions = _backwards(arrivals)
    captured = _captured(arrivals)
    return [
        Line("rows committed, the writers' count", f"{tally.rows:,}"),
        Line("rows committed, counted by SQL", f"{len(witnesses.ids):,}", witnesses.ids == written),
        Line("events in Kafka, by distinct id", f"{len(times):,}", times.keys() == written),
        Line("duplicates in Kafka", f"{duplicates:,}", duplicates == 0),
        Line("rolled-back rows in Kafka", f"{undone:,} of {len(tally.undone):,}", undone == 0),
        Line("keys out of order", f"{keys:,} of {several:,} with several events", keys == 0),
        Line("partitions out of commit order", f"{backwards} of {partitions}", backwards == 0),
        Line("money captured, added up by SQL", _amounts(witnesses.money)),
        Line("money captured, decoded from Kafka", _amounts(captured), captured == dict(witnesses.money)),
        Line(
            "slot confirmed up to",
            f"{witnesses.confirmed}; the last commit ends by {witnesses.wal_end}",
            witnesses.confirmed >= witnesses.wal_end,
        ),
    ]


def _keys_in_another_order(tally: Tally, arrivals: Iterable[Arrival]) -> int:
    """How many keys have other events, or in another order, than the writers committed; repetitions aside."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for arrival in arrivals:
        aggregate = arrival.topic.rpartition(".")[2]
        found.setdefault((aggregate, arrival.key), {})[arrival.event_id] = None
    return sum(list(found.get(key, ())) != ids for key, ids in tally.per_key.items() if len(ids) > 1)


def _backwards(arrivals: Iterable[Arrival]) -> tuple[int, int]:
    """Of the partitions with records, those where a position is not above the one before it; and how many there are."""
    last: dict[tuple[str, int], str] = {}
    backwards = set()
    for arrival in arrivals:
        partition = (arrival.topic, arrival.partition)
        if arrival.position <= last.get(partition, ""):
            backwards.add(partition)
        last[partition] = arrival.position
    return len(backwards), len(last)


def _captured(arrivals: Iterable[Arrival]) -> dict[str, Decimal]:
    records = {arrival.event_id: arrival.record for arrival in arrivals if arrival.type == "PaymentCaptured"}
    money: dict[str, Decimal] = {}
    for record in records.values():
        money[record["currency"]] = money.get(record["currency"], Decimal(0)) + record["amount"]
    return money


def _amounts(money: Money) -> str:
    return ", ".join(f"{currency} {money[currency]:,.2f}" for currency in sorted(money)) or "none"


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest value that at least `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(-int(-len(ordered) * share // 1) - 1, 0)] if ordered else 0

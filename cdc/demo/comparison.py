"""Compare committed rows with records in Kafka; one line for each delivery guarantee."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cdc.demo.reader import Arrival
from cdc.demo.tally import Tally
from cdc.lsn import LSN

Money = Mapping[str, Decimal]  # by currency


@dataclass(frozen=True, slots=True)
class ComparisonLine:
    """One line of the comparison; `right` is None for a reference value."""

    what: str
    figure: str
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected results, queried after the last commit: ids and captured money in the table, slot and end of the WAL."""

    ids: frozenset[str]
    money: Money
    confirmed: LSN
    wal_end: LSN  # just after the last commit


def compare(tally: Tally, expected: Expected, arrivals: Sequence[Arrival]) -> list[ComparisonLine]:
    """Return the lines of the comparison; the demo passes unless `right` is False in any."""
    written = tally.ids()
    times = Counter(arrival.event_id for arrival in arrivals)
    duplicates = len(arrivals) - len(times)
    undone = len(tally.undone & times.keys())
    keys = _reordered_keys(tally, arrivals)
    several = sum(len(ids) > 1 for ids in tally.per_key.values())
    backwards, partitions = _backwards(arrivals)
    captured = _captured(arrivals)
    return [
        ComparisonLine("rows committed, counted by writers", f"{tally.rows:,}"),
        ComparisonLine("rows committed, counted by SQL", f"{len(expected.ids):,}", expected.ids == written),
        ComparisonLine("events in Kafka, by distinct id", f"{len(times):,}", times.keys() == written),
        ComparisonLine("duplicates in Kafka", f"{duplicates:,}", duplicates == 0),
        ComparisonLine("rolled-back rows in Kafka", f"{undone:,} of {len(tally.undone):,}", undone == 0),
        ComparisonLine("keys out of order", f"{keys:,} of {several:,} with several events", keys == 0),
        ComparisonLine("partitions out of commit order", f"{backwards} of {partitions}", backwards == 0),
        ComparisonLine("money captured, added up by SQL", _amounts(expected.money)),
        ComparisonLine("money captured, decoded from Kafka", _amounts(captured), captured == dict(expected.money)),
        ComparisonLine(
            "slot confirmed up to",
            f"{expected.confirmed}; the last commit ends at {expected.wal_end}",
            expected.confirmed >= expected.wal_end,
        ),
    ]


def _reordered_keys(tally: Tally, arrivals: Iterable[Arrival]) -> int:
    """Return the number of keys whose events or their order differ from the commits, ignoring duplicates."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for arrival in arrivals:
        aggregate = arrival.topic.rpartition(".")[2]
        found.setdefault((aggregate, arrival.key), {})[arrival.event_id] = None
    return sum(list(found.get(key, ())) != ids for key, ids in tally.per_key.items() if len(ids) > 1)


def _backwards(arrivals: Iterable[Arrival]) -> tuple[int, int]:
    """Return the number of partitions with a position not above its predecessor, and of all partitions with records."""
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
        money[record["currency"]] = money.get(record["currency"], Decimal(0)) + Decimal(record["amount"])
    return money


def _amounts(money: Money) -> str:
    return ", ".join(f"{currency} {money[currency]:,.2f}" for currency in sorted(money)) or "none"


def percentile(values: Sequence[int], share: float) -> int:
    """Return the smallest value that at least `share` of the values do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[max(-int(-len(ordered) * share // 1) - 1, 0)] if ordered else 0

"""Horizons: which transactions had ended when, so that rows can be compared with an LSN.

A row does not show the LSN of its commit. So horizons are taken: a snapshot, and after it the end of the WAL. A
transaction whose id is below the snapshot's xmin had ended by then, and had written its commit record: once the slot
has confirmed the horizon's LSN, all of its events are in Kafka. The same holds for its subtransactions, whose ids are
larger than its own, and for prepared transactions, which have not ended.

A row's xmin has the low 32 bits of such an id. The rule uses the largest assigned id with these bits, which is never
below the true one: where it is wrong, for rows frozen billions of transactions ago, the row is not below.

Purge deletes rows below a horizon; recovery looks for rows that are not below one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from cdc.lsn import LSN

BELOW: Final = "(({next} - 1 - {xmin}) & 4294967295) >= ({next} - {horizon})"
"""Whether the transaction of `xmin` is below the horizon; `next` is above all assigned ids. Valid in SQL and Python."""

ROOM: Final = 64  # for the horizons of one connection
REMEMBERED: Final = 10  # in a record
REMEMBERED_SECONDS: Final = 8 * 3600.0
"""A promoted standby may lack the latest WAL, and a restored backup much of it: an older horizon counts there."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """The transactions that had ended at a moment."""

    xid: int  # 64 bits: every transaction below it
    lsn: LSN  # their commit records end here at the latest
    taken: float  # seconds: since 1970 by the server's clock, or monotonic where a horizon is not kept
    timeline: int
    counted: float | None = None  # since when statistics count, seconds since 1970; None where they were not read
    updates: int | None = None  # of rows of the outbox, as statistics count them; None where they were not read
    deletes: int | None = None
    tables: str | None = None  # that had rows of the outbox: oids, with a colon and the filenode where that differs
    number: int | None = None  # the last one that the sequence of the table gave

    def plain(self) -> dict[str, object]:
        """Return what a record holds of it."""
        found = {**asdict(self), "lsn": str(self.lsn), "taken": round(self.taken, 3)}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """Make one of what a record holds. Raises KeyError, TypeError or ValueError."""
        updates, deletes = (None if plain.get(name) is None else int(plain[name]) for name in ("updates", "deletes"))
        return cls(
            int(plain["xid"]),
            LSN.parse(plain["lsn"]),
            float(plain["taken"]),
            int(plain["timeline"]),
            None if plain.get("counted") is None else float(plain["counted"]),
            updates,
            deletes,
            plain.get("tables"),
            None if plain.get("number") is None else int(plain["number"]),
        )


def plain(known: Iterable[Horizon]) -> list[dict[str, object]]:
    """Return what a record holds of several: the tables only where they are others than before."""
    made: list[dict[str, object]] = []
    before: object = None
    for one in known:
        found = one.plain()
        if found.get("tables") == before:
            found.pop("tables", None)
        else:
            before = found["tables"] = found.get("tables")
        made.append(found)
    return made


def parsed(found: Iterable[Mapping[str, Any]]) -> tuple[Horizon, ...]:
    """Make horizons of what `plain` returned. Raises KeyError, TypeError or ValueError."""
    made: list[Horizon] = []
    tables: str | None = None
    for one in found:
        tables = one.get("tables", tables)
        made.append(Horizon.read({**one, "tables": tables}))
    return tuple(made)


class Horizons:
    """The horizons of one connection, from the oldest that is still useful; at most ROOM of them.

    They end with the connection: a server that crashed may assign unwritten ids and LSNs again.
    """

    def __init__(self) -> None:
        self._known: list[Horizon] = []

    def __len__(self) -> int:
        return len(self._known)

    def add(self, horizon: Horizon) -> None:
        """Add a horizon that is newer than all others."""
        self._known = _thinned([*self._known, horizon], ROOM, lambda before, after: after.taken - before.taken)

    def confirmed(self, lsn: LSN) -> list[Horizon]:
        """Return the horizons that are confirmed when the slot has confirmed `lsn`, the oldest first."""
        return [known for known in self._known if known.lsn <= lsn]

    def pass_by(self, lsn: LSN) -> None:
        """Drop the horizons that `confirmed` returns."""
        self._known = [known for known in self._known if known.lsn > lsn]

    def reached(self, confirmed: LSN, until: float) -> Horizon | None:
        """Return the newest horizon that is confirmed and was taken by `until`."""
        fit = (known for known in reversed(self._known) if known.lsn <= confirmed and known.taken <= until)
        return next(fit, None)

    def forget(self, before: Horizon) -> None:
        """Drop the horizons that are older than a reached one."""
        self._known = [known for known in self._known if known.taken >= before.taken]


def remembered(known: Iterable[Horizon]) -> tuple[Horizon, ...]:
    """Return the confirmed horizons to keep in a record, the newest last: few of long ago, and many of late."""
    kept = sorted(set(known), key=lambda one: (one.timeline, one.lsn, one.xid, one.taken))
    _drop_old(kept)
    now = kept[-1].taken if kept else 0.0
    # The older a horizon, the wider the gap that its neighbours may leave.
    gap = lambda before, after: (after.taken - before.taken) / max(now - before.taken, 0.001)  # noqa: E731
    kept = _thinned(kept, REMEMBERED, gap)
    _drop_old(kept)
    return tuple(kept)


def _drop_old(kept: list[Horizon]) -> None:
    """Keep one horizon that is hours old."""
    while len(kept) > 1 and kept[-1].taken - kept[1].taken >= REMEMBERED_SECONDS:
        del kept[0]


def counting(known: Iterable[Horizon], timeline: int, ends: Mapping[int, LSN], wal_end: LSN) -> tuple[Horizon, ...]:
    """Return the horizons that mean the same on a server, in their order.

    `timeline` is the server's, `ends` has the LSNs at which its earlier timelines ended (`TIMELINE_HISTORY`), and
    `wal_end` is the end of its WAL. What another timeline has beyond its end was never here, and neither was the WAL
    that a server lost which was set back to an earlier state.
    """
    limits = {**ends, timeline: wal_end}
    return tuple(one for one in known if one.timeline in limits and one.lsn <= limits[one.timeline])


def _thinned(known: Sequence[Horizon], room: int, gap: Callable[[Horizon, Horizon], float]) -> list[Horizon]:
    """Drop the horizons whose neighbours are nearest to each other by `gap` until there is room."""
    kept = list(known)
    while len(kept) > room:
        gaps = [gap(before, after) for before, after in zip(kept, kept[2:], strict=False)]
        del kept[1 + gaps.index(min(gaps))]
    return kept

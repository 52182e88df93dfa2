"""The offsets that Debezium's PostgreSQL connector stores in Kafka Connect, and whether they fit, and new ones.

`{"partition": {"server": PREFIX}, "offset": {"lsn": N, "lsn_proc": N, "lsn_commit": N, ...}}`; LSNs are decimal.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cdc.lsn import LSN

Offsets = Sequence[Mapping[str, Any]]

_LSNS: Final = ("lsn", "lsn_proc", "lsn_commit")
_SNAPSHOT: Final = "incremental_snapshot_"


def problem(offsets: Offsets, confirmed: LSN) -> str:
    """Return why a take-over from these offsets could lose events; empty when it could not.

    `confirmed` is that of the slot.
    """
    given = [entry["offset"] for entry in offsets if entry.get("offset")]
    if not given:
        return "Kafka Connect has no offsets of the connector: none are stored yet, or its snapshot is not finished"
    if len(given) > 1:
        return f"Kafka Connect has offsets of {len(given)} partitions of the connector, and a connector has one"
    offset = given[0]
    if str(offset.get("last_snapshot_record", "true")).lower() == "false":
        return "the snapshot of the connector is not finished: wait until it is"
    if any(name.startswith(_SNAPSHOT) for name in offset):
        return "an incremental snapshot of the connector is not finished: wait until it is, or stop it"
    stored = [int(offset[name]) for name in _LSNS if offset.get(name) is not None]
    if stored and confirmed > max(stored):
        return (
            f"the slot stands at {confirmed}, ahead of the stored offset {LSN(max(stored))}: events in between may"
            " never have been sent"
        )
    return ""


def moved(offsets: Offsets, to: LSN) -> list[dict[str, Any]]:
    """Return the offsets after everything was sent that was committed before `to`, the slot's position.

    At its start Debezium passes over the change at `lsn_proc` and all before it, and a change may begin right at `to`.
    Changes begin at multiples of 8, so none begins at one less. Then it begins with the first transaction that ends
    behind `lsn_commit`. Everything else is kept.
    """
    lsns = dict(zip(_LSNS, (int(to) - 1, int(to) - 1, int(to)), strict=True))
    return [
        {"partition": entry["partition"], "offset": {**entry["offset"], **lsns}}
        for entry in offsets
        if entry.get("offset")
    ]

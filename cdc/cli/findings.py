"""Render an audit's counts and findings as text and JSON."""

import base64
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from cdc.audit.books import AuditFinding
from cdc.audit.judging import Note
from cdc.audit.verdicts import FINDINGS
from cdc.logs.format import plain

_MEANINGS: Final = {
    "rows": "rows in the table, within the range",
    "records": "records in the topics",
    "delivered": "events with a row and a record",
    "in_flight": "events not yet confirmed by the slot",
    "dead_lettered": "events in the dead-letter topic, not replayed",
    "purged": "records whose row was deleted from the table",
    "newer": "records written after the table was read",
    "expired": "rows older than their topic's oldest record",
    "undecided": "rows that may be missing, or outside of the range",
    "foreign": "records of other programs or streams",
    "missing": "confirmed rows without a record",
    "duplicate": "records whose event is in the topic more than once",
    "out_of_order": "records after a later event of their key",
    "phantom": "records without a row",
    "misplaced": "records in another topic or with another key than the row's",
    "hole": "missing positions within a transaction",
    "sequence_gap": "missing sequence numbers",
    "stale": "keys of a compacted topic that end with an older event",
}
_ALWAYS: Final = ("rows", "records", "delivered", *FINDINGS)


def counts(found: Mapping[str, int]) -> Iterator[str]:
    """Yield one line per count; counts of findings are included even if zero."""
    shown = [name for name in _MEANINGS if found[name] or name in _ALWAYS]
    width, digits = max(map(len, shown)), max(len(str(found[name])) for name in shown)
    for name in shown:
        yield f"{name.replace('_', ' '):{width}}  {found[name]:{digits}}  {_MEANINGS[name]}"


def print_findings(findings: Iterable[AuditFinding]) -> None:
    """Print findings as a table, or as lines of at most 250 characters if stdout is not a terminal."""
    table = Table("finding", "id", "key", "topic", "partition", "offset", "position", "meaning", box=box.SIMPLE_HEAD)
    for one in findings:
        places = (one.topic, one.partition, one.offset, one.position)
        cells = (one.kind.replace("_", " "), one.id, _key(one.key), *places, one.meaning)
        table.add_row(*("-" if cell is None else plain(str(cell)) for cell in cells))
    _console().print(table)


def _console() -> Console:
    # A pipe or file has no width.
    return Console(width=None if sys.stdout.isatty() else 250, markup=False, highlight=False, emoji=False)


def notes(found: Iterable[Note]) -> Iterator[str]:
    """Yield one line per note about rows or records that could not be audited."""
    for what, number, why in found:
        yield f"not judged: {number} {what}: {plain(why)}" if number else f"note: {plain(why)}"


def facts(one: AuditFinding) -> dict[str, object]:
    """Return a finding as a JSON object."""
    return {
        "finding": one.kind,
        "id": one.id,
        **_machine_key(one.key),
        "topic": one.topic,
        "partition": one.partition,
        "offset": one.offset,
        "position": one.position,
        "count": one.events,
        "meaning": one.meaning,
    }


def _machine_key(key: bytes | None) -> dict[str, str | None]:
    """Return the key as text, or in base64 if it is not valid UTF-8."""
    try:
        return {"key": None if key is None else key.decode()}
    except UnicodeDecodeError:
        return {"key": None, "key_base64": base64.b64encode(key or b"").decode()}


def _key(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="replace")

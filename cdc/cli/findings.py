"""What an audit found, for people and for machines."""

import base64
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from cdc.audit.books import Finding
from cdc.audit.judging import Note
from cdc.audit.verdicts import FINDINGS
from cdc.logs.format import plain

_MEANINGS: Final = {
    "rows": "in the table, within the range",
    "records": "in the topics",
    "delivered": "events whose row has its record",
    "in_flight": "the slot has still to confirm them",
    "dead_lettered": "in the dead-letter topic, not replayed",
    "purged": "records whose row is not in the table any more",
    "newer": "records that came after the table was read",
    "expired": "rows whose topic no longer holds what is as old",
    "foreign": "records of others",
    "missing": "in the table, confirmed, in no topic",
    "duplicate": "in a topic more than once",
    "out_of_order": "behind a later event of their key",
    "phantom": "records of no row",
    "misplaced": "in another topic or under another key than the row's",
    "hole": "positions of a transaction that nothing has",
    "sequence_gap": "sequence numbers that no record has",
}
_ALWAYS: Final = ("rows", "records", "delivered", *FINDINGS)


def counts(found: Mapping[str, int]) -> Iterator[str]:
    """What was counted, a line each; findings also where there are none."""
    shown = [name for name in _MEANINGS if found[name] or name in _ALWAYS]
    width, digits = max(map(len, shown)), max(len(str(found[name])) for name in shown)
    for name in shown:
        yield f"{name.replace('_', ' '):{width}}  {found[name]:{digits}}  {_MEANINGS[name]}"


def listed(findings: Iterable[Finding]) -> None:
    """Print findings as a table."""
    table = Table("finding", "id", "key", "topic", "partition", "offset", "position", "meaning", box=box.SIMPLE_HEAD)
    for one in findings:
        places = (one.topic, one.partition, one.offset, one.position)
        cells = (one.kind.replace("_", " "), one.id, _key(one.key), *places, one.meaning)
        table.add_row(*("-" if cell is None else plain(str(cell)) for cell in cells))
    _console().print(table)


def _console() -> Console:
    # Into a pipe or a file there is no width to keep to.
    return Console(width=None if sys.stdout.isatty() else 250, markup=False, highlight=False, emoji=False)


def notes(found: Iterable[Note]) -> Iterator[str]:
    """What could not be judged, a line each."""
    for what, number, why in found:
        yield f"not judged: {number} {what}: {plain(why)}" if number else f"note: {plain(why)}"


def facts(one: Finding) -> dict[str, object]:
    """A finding for machines."""
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
    """A key that is no text in base64."""
    try:
        return {"key": None if key is None else key.decode()}
    except UnicodeDecodeError:
        return {"key": None, "key_base64": base64.b64encode(key or b"").decode()}


def _key(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="replace")

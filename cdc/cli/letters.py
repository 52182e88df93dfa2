"""Options that select dead letters, and their rendering as text and JSON."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import click
import orjson

from cdc import quantities
from cdc.cli.params import Moment
from cdc.dead_letters.topic import Entry
from cdc.logs.format import plain
from cdc.records.dead_letters import DeadLetter, Wanted

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_LEAST_REASON: Final = 40

F = TypeVar("F", bound=Callable[..., object])


def filters(command: F) -> F:
    """Add the options that select dead letters; pass their values to `wanted`."""
    for option in reversed(
        (
            click.option(
                "--since", type=Moment(), metavar="TIME", help="Committed at TIME or later; UTC, or an age such as 12h."
            ),
            click.option("--until", type=Moment(), metavar="TIME", help="Committed at TIME or earlier."),
            click.option("--type", "event_type", metavar="NAME", help="With this event type."),
            click.option("--key", help="With this key."),
            click.option("--topic", metavar="NAME", help="For this topic."),
            click.option(
                "--error", metavar="CLASS|TEXT", help="With this error class, or this text in the error message."
            ),
        )
    ):
        command = option(command)
    return command


def wanted(ids: Iterable[str] = (), *, event_type: str | None = None, **given: Any) -> Wanted:
    """Return the filter for the option values of `filters`."""
    return Wanted(frozenset(ids), type=event_type, **given)


def moment(milliseconds: int) -> str:
    """Format milliseconds since 1970 as ISO 8601 in UTC, or as a number if the year does not have four digits."""
    try:
        return quantities.moment(milliseconds / 1000)
    except (ValueError, OverflowError):
        return str(milliseconds)


def facts(letter: Entry | DeadLetter) -> dict[str, object]:
    """Return a letter as a JSON object, without its payload."""
    return {
        "id": letter.id,
        "position": letter.position,
        "type": letter.type,
        "topic": letter.topic,
        "key": _key(letter.key),
        "committed": moment(letter.timestamp),
        "error": letter.error,
        "message": letter.message,
    }


def all_facts(entry: Entry, letter: DeadLetter) -> dict[str, object]:
    """Return a letter as a JSON object with its payload: JSON unchanged, bytes as base64, other text as a string."""
    more: dict[str, object] = {
        "replayed": entry.replayed,
        "partition": entry.partition,
        "offset": entry.offset,
        "aggregate": letter.aggregate,
        "headers": dict(letter.headers),
    }
    payload = letter.payload
    if payload is None or letter.payload_is_avro:
        return facts(letter) | more | {"payload": payload and base64.b64encode(payload).decode()}
    text = payload.decode(errors="replace")
    return facts(letter) | more | {"payload": orjson.Fragment(text) if _is_json(text) else text}


def line(value: dict[str, object]) -> str:
    """Return one line of JSON."""
    return orjson.dumps(value).decode()


def table(entries: Iterable[Entry], widths: dict[str, int], *, replayed: bool, columns: int | None) -> Iterator[str]:
    """Yield the lines of a table, or nothing if there are no entries, without holding the table in memory.

    `columns` is the width of the terminal. A reason that does not fit gets its own line below the row.
    """
    sizes = {"committed": 20} | {name: max(len(name), widths[name], 1) for name in ("id", "type", "key", "topic")}
    sizes |= {"replayed": 20} if replayed else {}
    used = sum(sizes.values()) + 2 * len(sizes)
    below = columns is not None and columns - used < _LEAST_REASON
    room = None if columns is None else columns - (2 if below else used)
    headed = False
    for entry in entries:
        if not headed:
            headed = True
            titles = "".join(f"{name:{size}}  " for name, size in sizes.items())
            yield titles.rstrip() if below else f"{titles}error"
        cells = [_second(moment(entry.timestamp)), entry.id, entry.type, _key(entry.key), entry.topic]
        cells += [entry.replayed and _second(entry.replayed)] if replayed else []
        row = "".join(f"{plain(cell or '-'):{size}}  " for cell, size in zip(cells, sizes.values(), strict=True))
        reason = plain(f"{entry.error}: {entry.message}")
        if room is not None and len(reason) > room:
            reason = f"{reason[: max(room, 2) - 1]}…"
        yield f"{row.rstrip()}\n  {reason}" if below else f"{row}{reason}"


def _second(text: str) -> str:
    """Return an ISO timestamp without its milliseconds."""
    return f"{text[:19]}Z" if len(text) == 24 else text


def full(entry: Entry, letter: DeadLetter, topic: str) -> Iterator[str]:
    """Yield the lines of text that describe one letter."""
    yield f"event {plain(letter.id) or '(no id)'} at position {letter.position}"
    for name, value in (
        ("type", letter.type),
        ("topic", letter.topic),
        ("key", _key(letter.key)),
        ("aggregate", letter.aggregate),
        ("committed", moment(letter.timestamp)),
        ("error", f"{letter.error}: {letter.message}"),
        ("replayed", entry.replayed or "no"),
        ("record", f"{topic}, partition {entry.partition}, offset {entry.offset}"),
        *((f"header {name}", value) for name, value in letter.headers),
    ):
        yield f"  {name:10} {'-' if value in (None, '') else plain(str(value))}"
    if letter.payload is None:
        yield "payload: null"
    elif letter.payload_is_avro:
        yield f"payload: {len(letter.payload)} bytes"
        yield f"  {letter.payload.hex()}"
    else:
        yield f"payload: {len(letter.payload)} bytes of JSON"
        yield from (f"  {one}" for one in pretty(letter.payload.decode(errors="replace")).split("\n"))


def pretty(text: str) -> str:
    """Indent JSON text without changing its values, because a number out of range may be the error to find.

    Text that is not JSON is returned on one line.
    """
    if not _is_json(text):
        return plain(text)
    out, depth, tokens = "", 0, _TOKEN.findall(text)
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else ""
        before = tokens[place - 1] if place else ""
        if token in "[{":
            depth += 1
            out += token if after in "]}" else f"{token}\n{'  ' * depth}"
        elif token in "]}":
            depth -= 1
            out += token if before in "[{" else f"\n{'  ' * depth}{token}"
        else:
            out += {",": f",\n{'  ' * depth}", ":": ": "}.get(token, plain(token))
    return out


def _is_json(text: str) -> bool:
    """Return whether `text` is JSON with numbers of any size."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_float=str, parse_int=str, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _key(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="replace")

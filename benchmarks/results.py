"""results.json: one section for each thing measured, kept until it is measured again; the one before beside it."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = "results.json"
PREVIOUS: Final = "results-previous.json"
_NOT_COMPARED: Final = frozenset(
    {
        *("machine", "workload", "runs", "samples", "lowest", "highest", "steps", "faster_than_linear"),
        *("events", "reached", "late_ms", "payload_bytes", "ceiling_wait_us"),
    }
)

Sections = dict[str, dict[str, Any]]


class Change(NamedTuple):
    """A figure, before and now; `percent` is nan when it was zero."""

    name: str
    before: float
    now: float

    @property
    def percent(self) -> float:
        return (self.now / self.before - 1) * 100 if self.before else math.nan


def read(file: Path) -> Sections:
    """The sections of a file; none when it does not exist."""
    try:
        found: Sections = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    return found


def save(folder: Path, sections: Sections) -> Sections:
    """Write new sections over those of the same name, keep the file as it was beside it, and return all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    before = read(file)
    if before:
        file.replace(folder / PREVIOUS)
    everything = {**before, **sections}
    file.write_text(json.dumps(_finite(everything), indent=1) + "\n")
    return everything


def _finite(value: Any) -> Any:
    """JSON has no nan."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Each median and single figure that both have, in the order of `now`."""
    known = dict(_figures("", before))
    return [Change(name, known[name], value) for name, value in _figures("", now) if name in known]


def _figures(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key not in _NOT_COMPARED:
                yield from _figures(path if key == "median" else f"{path} {key}".strip(), part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)

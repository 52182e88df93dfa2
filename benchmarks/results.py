"""results.json: one section per measurement, kept until it is repeated; the previous file is kept beside it."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = "results.json"
PREVIOUS: Final = "results-previous.json"
ADDED_TO: Final = "added_to"
"""The key of a section for the names of its parts that add to those of the section before, by contestant."""
_NOT_COMPARED: Final = frozenset(
    {
        *("machine", "workload", "runs", "samples", "lowest", "highest", "steps", "faster_than_linear"),
        *("events", "reached", "late_ms", "payload_bytes", "ceiling_wait_us"),
        *("written", "written_meanwhile", "units", "seconds", "rounds", "asked", ADDED_TO),
    }
)

Sections = dict[str, dict[str, Any]]


class Change(NamedTuple):
    """A figure's previous and current value; `percent` is nan if the previous one was zero."""

    name: str
    before: float
    now: float

    @property
    def percent(self) -> float:
        return (self.now / self.before - 1) * 100 if self.before else math.nan


def read(file: Path) -> Sections:
    """Read the sections of a file; none if it does not exist."""
    try:
        found: Sections = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    return found


def save(folder: Path, sections: Sections) -> Sections:
    """Replace sections by name, or add to them; keep a copy of the previous file, and return all sections."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    before = read(file)
    if before:
        file.replace(folder / PREVIOUS)
    everything = {**before, **{name: _added(before.get(name, {}), part) for name, part in sections.items()}}
    file.write_text(json.dumps(_finite(everything), indent=1) + "\n")
    return everything


def _added(before: Mapping[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    return {**section, **{name: {**before.get(name, {}), **section[name]} for name in section.get(ADDED_TO, ())}}


def _finite(value: Any) -> Any:
    """Replace nan, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Compare each median and single figure in both results, in the order of `now`."""
    known = dict(_figures("", before))
    return [Change(name, known[name], value) for name, value in _figures("", now) if name in known]


def _figures(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key not in _NOT_COMPARED:
                yield from _figures(path if key == "median" else f"{path} {key}".strip(), part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)

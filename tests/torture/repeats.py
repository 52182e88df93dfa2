"""Duplicates by what went before the session that made them. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class Repeated(NamedTuple):
    """What sessions repeated that followed one cause."""

    times: int  # how often it was the cause
    duplicates: int
    each: float
    most: int  # of one session


def repeated(duplicates: Mapping[int, int], causes: Mapping[int, Counter[str]]) -> dict[str, Repeated]:
    """By cause; both are given by session.

    A session that follows both counts for the crash: by that, PostgreSQL itself goes further back.
    """
    counts: dict[str, list[int]] = {"crash": [], "kill": [], "other": []}
    for session, count in duplicates.items():
        before = causes.get(session, Counter[str]())
        counts[next((cause for cause in counts if cause in before), "other")].append(count)
    times = sum(causes.values(), Counter[str]())
    return {
        cause: Repeated(times[cause], sum(each), round(sum(each) / max(1, times[cause]), 3), max(each, default=0))
        for cause, each in counts.items()
    }

"""The lines of `check` that tests produced: proof that each warning and failure is tested, not only named in a test."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

from cdc.checks.finding import Status

_CLAIMS: Final = "produces"
_seen: set[str] = set()


def record(lines: Iterable[tuple[str, Status | str]]) -> None:
    """Remember the names and statuses of lines that a test got from `check` or from a part of it."""
    _seen.update(f"{name}:{status}" for name, status in lines)


def produces(*lines: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a test with the lines, as `name:status`, that it produces. It fails if it passes without one of them."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def checked(*args: Any, **kwargs: Any) -> None:
            _seen.clear()
            test(*args, **kwargs)
            missing = set(lines) - _seen
            assert not missing, f"claimed, but not produced: {', '.join(sorted(missing))}"

        setattr(checked, _CLAIMS, frozenset(lines))
        return checked

    return decorate


def claims(module: object) -> set[str]:
    """Return the lines that the tests of a module claim to produce."""
    return {line for test in vars(module).values() for line in getattr(test, _CLAIMS, ())}

"""Whether an instance is ready: a rollout stops where an instance fails at what worked elsewhere.

A unit that needs an operator is reported. It would fail in every instance, so it leaves the instance ready. Where the
unit worked elsewhere before and fails here from the beginning, the instance is what is wrong: its version, its files,
its network.
"""

from collections.abc import Mapping
from typing import Final

from cdc.fleet.register import Worked

FILE_SECONDS: Final = 60.0
"""How long a unit without a file leaves an instance ready: folders differ while a change is rolled out."""

NO_FILE: Final = "put it into the folder of every instance, or run fleet forget"


class Readiness:
    """What one instance saw of its units since each was placed here."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._worked: set[str] = set()
        self._failing: dict[str, str] = {}
        self._blamed: dict[str, str] = {}  # failing, and it worked elsewhere
        self._without_file: dict[str, float] = {}

    def left(self, unit: str) -> None:
        """Note that a unit is no longer placed here."""
        self._worked.discard(unit)
        self._failing.pop(unit, None)
        self._blamed.pop(unit, None)

    def works(self, unit: str, last: Worked | None) -> bool | None:
        """Note that a unit works; return whether it works for the register, None where that knows."""
        self._worked.add(unit)
        self._failing.pop(unit, None)
        self._blamed.pop(unit, None)
        return None if last is not None and last.works else True

    def fails(self, unit: str, why: str, last: Worked | None) -> bool | None:
        """Note that a unit needs an operator; return what `works` does.

        A unit that never worked here says nothing about itself when it worked elsewhere: it may be the instance.
        """
        self._failing[unit] = why
        if unit in self._worked:
            return None if last is not None and not last.works else False
        if last is not None and last.works and last.instance != self._instance:
            self._blamed[unit] = why
        return None

    def without_file(self, units: set[str], now: float) -> None:
        """Note which units are placed here without a file."""
        self._without_file = {unit: self._without_file.get(unit, now) for unit in units}

    @property
    def known(self) -> set[str]:
        """The units that worked or failed here since they were placed here."""
        return {*self._worked, *self._failing}

    @property
    def failing(self) -> Mapping[str, str]:
        """Why each unit that needs an operator does."""
        return self._failing

    def problems(self, now: float) -> list[str]:
        """Return why the instance is not ready, a line for each reason."""
        missing = sorted(unit for unit, since in self._without_file.items() if now - since >= FILE_SECONDS)
        return [
            *(f"unit {unit} fails here and worked elsewhere: {why}" for unit, why in sorted(self._blamed.items())),
            *(f"unit {unit} is placed here, and has no file in the folder: {NO_FILE}" for unit in missing),
        ]

"""One line of `check`: what was looked at, what was found, and what puts it right."""

from typing import Final, Literal, NamedTuple

Side = Literal["postgres", "kafka", "contracts"]
Status = Literal["pass", "warn", "fail"]

PASS: Final = "pass"
WARN: Final = "warn"
FAIL: Final = "fail"


class Finding(NamedTuple):
    """`name` is stable; `fix` holds SQL or commands in the order in which to run them, each as it can be copied."""

    name: str
    side: Side
    status: Status
    found: str
    fix: tuple[str, ...] = ()
    hint: str = ""


class Notes:
    """Findings of one side, as they are made; of those of one name, the last."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.findings: list[Finding] = []

    def passes(self, name: str, found: str) -> None:
        """All is well."""
        self._add(name, PASS, found, (), "")

    def warns(self, name: str, found: str, *fix: str, hint: str = "") -> None:
        """It works, and something may become of it."""
        self._add(name, WARN, found, fix, hint)

    def fails(self, name: str, found: str, *fix: str, hint: str = "") -> None:
        """The publisher cannot do its work."""
        self._add(name, FAIL, found, fix, hint)

    def _add(self, name: str, status: Status, found: str, fix: tuple[str, ...], hint: str) -> None:
        # A name stands once: what was well when it was looked at may have been lost since.
        self.findings = [one for one in self.findings if one.name != name]
        self.findings.append(Finding(name, self.side, status, found, fix, hint))

"""The result of one line of `check`: status, finding, and the commands that fix it."""

from typing import Final, Literal, NamedTuple

Side = Literal["postgres", "kafka", "contracts", "fleet"]
Status = Literal["pass", "warn", "fail"]

PASS: Final = "pass"
WARN: Final = "warn"
FAIL: Final = "fail"


class Finding(NamedTuple):
    """One line: `name` never changes between releases; `fix` holds SQL or shell commands, in the order to run them."""

    name: str
    side: Side
    status: Status
    found: str
    fix: tuple[str, ...] = ()
    hint: str = ""


class Notes:
    """Collects the findings of one side. A later finding replaces an earlier one of the same name."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.findings: list[Finding] = []

    def passes(self, name: str, found: str) -> None:
        """Record that nothing needs to be done."""
        self._add(name, PASS, found, (), "")

    def warns(self, name: str, found: str, *fix: str, hint: str = "") -> None:
        """Record a risk: the publisher works, but may fail or lose events later."""
        self._add(name, WARN, found, fix, hint)

    def fails(self, name: str, found: str, *fix: str, hint: str = "") -> None:
        """Record a failure: the publisher cannot start, or cannot deliver events."""
        self._add(name, FAIL, found, fix, hint)

    def _add(self, name: str, status: Status, found: str, fix: tuple[str, ...], hint: str) -> None:
        # A check that passed may fail later in the same run, for example when the connection is lost.
        self.findings = [one for one in self.findings if one.name != name]
        self.findings.append(Finding(name, self.side, status, found, fix, hint))

"""docs/operating.md documents every alert, state and exit code, and quotes messages correctly."""

import re

import pytest
import yaml

from cdc import errors
from cdc.telemetry.health import NOT_READY, State
from tests import documents
from tests.documents import ROOT

PAGE = (ROOT / "docs" / "operating.md").read_text()
SOURCE = "".join(path.read_text() for path in sorted((ROOT / "cdc").rglob("*.py")))
ALERTS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())


def alerts() -> list[str]:
    return sorted({rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]})


def section(heading: str) -> str:
    """The text between a heading of the second level and the next one."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def test_headings_of_runbooks_are_exactly_the_alerts() -> None:
    assert sorted(re.findall(r"^### (.+)$", section("Alarms"), re.MULTILINE)) == alerts()


def test_every_alert_links_to_its_heading() -> None:
    page = ROOT / "docs" / "operating.md"
    urls = {rule["annotations"]["runbook_url"] for group in ALERTS["groups"] for rule in group["rules"]}
    led = {url.rpartition("docs/operating.md#")[2] for url in urls}
    assert led == {alert.lower() for alert in alerts()} & documents.anchors(page)


@pytest.mark.parametrize("state", State)
def test_every_state_is_in_the_table_with_its_readiness(state: State) -> None:
    (row,) = re.findall(rf"^\| `{state}`(.*?)\|", section("States"), re.MULTILINE)
    # A stopped process serves no readiness probe.
    assert ("not ready" in row) == (state in NOT_READY and state != State.STOPPED)


def test_every_exit_code_is_in_the_table() -> None:
    codes = {error.exit_code for error in vars(errors).values() if hasattr(error, "exit_code")}
    found = {int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)}
    assert codes | {0, 2} <= found


def test_quoted_messages_exist_in_the_program() -> None:
    first_cells = re.findall(r"^\| (`.*?) \|", section("Messages"), re.MULTILINE)
    pieces = [
        piece.strip(" ()") for cell in first_cells for span in re.findall(r"`(.+?)`", cell) for piece in span.split("…")
    ]
    assert len(pieces) > 20
    # What holds values, or is broken over two lines of source, is not one text there.
    found = re.sub(r"\"\s*f?\"", "", SOURCE)
    assert [piece for piece in pieces if len(piece) > 3 and piece not in found and "[" not in piece] == []

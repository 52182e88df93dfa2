"""Most of a minute of everything: real faults on three brokers and PostgreSQL, and the judge's verdict."""

from pathlib import Path

import pytest

from tests.torture.campaign import Plan, run
from tests.torture.faults import FAULTS

pytestmark = pytest.mark.timeout(420)

SECONDS = 45
# One or more of each; the slow ones among the faults are left to the long campaigns.
KINDS = (
    "publisher-kill",
    "publisher-term",
    "publisher-freeze",
    "publisher-takeover",
    "postgres-immediate",
    "postgres-kill",
    "postgres-fast",
    "walsender-terminate",
    "broker-kill",
    "broker-freeze",
    "pg-reset",
    "pg-cut",
    "pg-dark",
    "pg-keepalives",
    "pg-error",
    "kafka-reset",
    "kafka-cut",
    "kafka-dark",
    "kafka-hold",
)


def test_a1_a15_a17_c2_d5_faults_on_all_sides_lose_reorder_and_invent_nothing(folder: Path) -> None:
    faults = [fault for fault in FAULTS if fault.name in KINDS]
    outcomes = run(Plan(SECONDS, seed=20, faults=faults, once=True), folder / "torture", print)
    assert (outcomes.violations, outcomes.broken) == ([], [])
    assert outcomes.injected == outcomes.planned
    assert set(outcomes.injected) == set(KINDS)
    assert outcomes.verdict.events > 1000
    assert outcomes.statuses > 20

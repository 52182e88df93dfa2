"""About a minute of real faults on three brokers and PostgreSQL, and the judge's verdict."""

from pathlib import Path
from typing import Final

import pytest

from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE
from tests.torture.campaign import Plan, run
from tests.torture.faults import FAULTS

pytestmark = pytest.mark.timeout(420)

SECONDS: Final = 12
# One or more of each; the slow ones among the faults are left to the long campaigns.
KINDS: Final = {
    ("slot", AT_LEAST_ONCE): (
        "publisher-kill",
        "publisher-term",
        "postgres-immediate",
        "postgres-fast",
        "topic-compact",
        "backend-terminate",
        "broker-freeze",
        "pg-reset",
        "pg-cut",
        "pg-keepalives",
        "pg-error",
        "kafka-cut",
        "kafka-dark",
        "kafka-hold",
    ),
    ("slot", EXACTLY_ONCE): (
        "publisher-kill",
        "publisher-freeze",
        "publisher-revive",
        "postgres-kill",
        "broker-kill",
        "pg-dark",
        "kafka-reset",
        "kafka-commit",
    ),
    ("polling", EXACTLY_ONCE): (
        "publisher-kill",
        "postgres-kill",
        "table-retype",
        "table-lock",
        "topic-compact",
        "backend-terminate",
        "pg-cut",
        "kafka-reset",
        "kafka-commit",
    ),
}


@pytest.mark.parametrize(("source", "guarantee"), KINDS)
def test_a1_a15_a17_b16_c2_c18_d5_p1_faults_lose_reorder_and_invent_nothing(
    source: str, guarantee: str, folder: Path
) -> None:
    kinds = KINDS[source, guarantee]
    plan = Plan(
        SECONDS,
        seed=20,
        faults=[fault for fault in FAULTS if fault.name in kinds],
        once=True,
        guarantee=guarantee,
        sequence=guarantee == EXACTLY_ONCE,
        source=source,
    )
    outcomes = run(plan, folder / "torture", print)
    assert (outcomes.violations, outcomes.broken) == ([], [])
    assert outcomes.injected == outcomes.planned
    assert set(outcomes.injected) == set(kinds)
    assert outcomes.verdict.events > 500
    # Confirmations that were compared with the acknowledgements; 11 with the slot on a calm machine.
    assert outcomes.statuses > (3 if source == "slot" else 0)

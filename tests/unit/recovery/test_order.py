"""The order of a recovery: one rule for all rows, by what they show."""

import pytest

from cdc.recovery.order import Order, OrderFacts, OrderKind, order_by

FACTS = OrderFacts(commits=True, untimed=False, sequence="cdc_seq")
TIME, NUMBER = "pg_xact_commit_timestamp(xmin)", 'coalesce("cdc_seq", 0)'
XID = (
    "((select pg_snapshot_xmax(pg_current_snapshot())::text::int8) - 1 - (((select"
    " pg_snapshot_xmax(pg_current_snapshot())::text::int8) - 1 - xmin::text::int8) & 4294967295))"
)
PLACES = ["cmin::text::int8", "tableoid::int8", "ctid"]


def parts(order: Order) -> list[str]:
    return [expression.as_string() for expression in order.expressions]


@pytest.mark.parametrize(
    ("facts", "kind", "expected", "exact"),
    [
        (FACTS, OrderKind.COMMITTED, [TIME, NUMBER, *PLACES], True),
        (OrderFacts(commits=True, untimed=False, sequence=None), OrderKind.COMMITTED, [TIME, *PLACES], True),
        (OrderFacts(commits=True, untimed=True, sequence="cdc_seq"), OrderKind.SEQUENCE, [NUMBER, XID, *PLACES], True),
        (OrderFacts(commits=False, untimed=True, sequence="cdc_seq"), OrderKind.SEQUENCE, [NUMBER, XID, *PLACES], True),
        (
            OrderFacts(commits=False, untimed=True, sequence="cdc_seq", unnumbered=True),
            OrderKind.SEQUENCE,
            [NUMBER, XID, *PLACES],
            False,
        ),
        (OrderFacts(commits=True, untimed=True, sequence=None), OrderKind.XID, [XID, *PLACES], False),
        (OrderFacts(commits=False, untimed=True, sequence=None), OrderKind.XID, [XID, *PLACES], False),
        (
            OrderFacts(commits=True, untimed=False, sequence="cdc_seq", updated=True),
            OrderKind.SEQUENCE,
            [NUMBER, XID, *PLACES],
            True,
        ),
        (
            OrderFacts(commits=True, untimed=False, sequence=None, updated=True),
            OrderKind.COMMITTED,
            [TIME, *PLACES],
            False,
        ),
    ],
)
def test_the_order_is_the_best_that_all_rows_show(
    facts: OrderFacts, kind: OrderKind, expected: list[str], exact: bool
) -> None:
    found = order_by(facts)
    assert (found.kind, parts(found), found.exact) == (kind, expected, exact)


def test_columns_are_those_of_the_alias() -> None:
    text = order_by(FACTS, "r").sql.as_string()
    assert text.startswith('pg_xact_commit_timestamp("r".xmin), coalesce("r"."cdc_seq", 0), "r".cmin')

"""Subject strategies."""

import pytest

from cdc.avro.subjects import Strategy, subject


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("topic-record-name", "outbox.event.order-shop.OrderPlaced"),
        ("record-name", "shop.OrderPlaced"),
        ("topic-name", "outbox.event.order-value"),
    ],
)
def test_the_subject_of_a_value_as_confluents_serializers_name_it(strategy: Strategy, expected: str) -> None:
    assert subject(strategy, "outbox.event.order", "shop.OrderPlaced") == expected

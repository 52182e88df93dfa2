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
def test_subjects_match_those_of_confluent_serializers(strategy: Strategy, expected: str) -> None:
    assert subject(strategy, "outbox.event.order", "shop.OrderPlaced") == expected

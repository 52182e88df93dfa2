"""Servers of one test alone, with a pipeline on them: for tests that torment both PostgreSQL and Kafka."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from cdc.local.stack import Stack
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.servers import PrivateStack

Torment = Callable[..., tuple[Stack, Pipeline]]


@pytest.fixture
def torment(private_stack: PrivateStack, tmp_path: Path) -> Iterator[Torment]:
    """`torment(brokers=1, kafka={...}, **settings)`: servers of this test alone with these settings of Kafka and of
    PostgreSQL, and a pipeline on them."""
    made: list[Pipeline] = []

    def make(
        brokers: int = 1, kafka: Mapping[str, str] = MappingProxyType({}), **settings: str
    ) -> tuple[Stack, Pipeline]:
        stack = private_stack(brokers=brokers, kafka=kafka, postgres=settings)
        addresses = stack.addresses()
        assert addresses
        made.append(make_pipeline(addresses.postgres, addresses.kafka, "t-", tmp_path))
        return stack, prepare(made[-1])

    yield make
    for pipeline in made:
        pipeline.close()

"""Servers of one test alone, with a pipeline on them: for tests that torment both PostgreSQL and Kafka."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from cdc.local.stack import Stack
from tests.pipeline import Pipeline, make_pipeline, prepare

Torment = Callable[..., tuple[Stack, Pipeline]]


@pytest.fixture
def torment(private_stack: Callable[..., Stack], tmp_path: Path) -> Iterator[Callable[..., tuple[Stack, Pipeline]]]:
    """`torment(brokers=1, **settings)`: servers of this test alone with PostgreSQL settings, and a pipeline on them."""
    made: list[Pipeline] = []

    def make(brokers: int = 1, **settings: str) -> tuple[Stack, Pipeline]:
        stack = private_stack(brokers=brokers)
        if settings:
            stack.postgres.stop()
            stack.postgres.settings.update(settings)
            stack.postgres.start()
        addresses = stack.addresses()
        assert addresses
        pipeline = make_pipeline(make_conninfo(addresses.postgres), addresses.kafka, "t-", tmp_path)
        made.append(pipeline)
        return stack, prepare(pipeline)

    yield make
    for pipeline in made:
        pipeline.close()

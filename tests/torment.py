"""Servers that tests torment, with pipelines on them: those of a module, or of one test alone."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.local.stack import Addresses, Stack
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.servers import PrivateStack, a_database, a_folder

Torment = Callable[..., tuple[Stack, Pipeline]]


@pytest.fixture(scope="module")
def module_stack() -> Iterator[Callable[[], Stack]]:
    """`module_stack()` returns the servers of the module's tests; it starts, thaws and restarts what does not run."""
    made: list[Stack] = []
    with contextlib.ExitStack() as ends:

        def whole() -> Stack:
            if not made:
                made.append(Stack(ends.enter_context(a_folder()) / "stack"))
                ends.callback(made[0].down, purge=True)
            (stack,) = made
            for broker in stack.brokers:
                if broker.process:
                    broker.thaw()
            stack.up()
            return stack

        yield whole


@pytest.fixture
def torment(
    module_stack: Callable[[], Stack], private_stack: PrivateStack, tmp_path: Path, source: str
) -> Iterator[Torment]:
    """`torment()`: the servers of the module, which the test may stop, kill and freeze, with a pipeline on them.

    `torment(brokers=3, kafka={...}, **settings)`: servers of this test alone, with these settings of Kafka and of
    PostgreSQL. `wal_sender_timeout` needs none, because it can be set for a database.
    """
    with contextlib.ExitStack() as ends:

        def make(
            brokers: int = 1,
            kafka: Mapping[str, str] = MappingProxyType({}),
            wal_sender_timeout: str | None = None,
            **settings: str,
        ) -> tuple[Stack, Pipeline]:
            if brokers > 1 or kafka or settings:
                stack = private_stack(brokers=brokers, kafka=kafka, postgres=settings)
                dsn = _addresses(stack).postgres
            else:
                stack = module_stack()
                dsn = ends.enter_context(a_database(_addresses(stack).postgres))
                ends.callback(module_stack)  # the database is dropped by servers that run
            name = conninfo_to_dict(dsn)["dbname"]
            pipeline = make_pipeline(dsn, _addresses(stack).kafka, f"{name}-", tmp_path, source)
            ends.callback(pipeline.close)
            if wal_sender_timeout:
                pipeline.sql(f"alter database {name} set wal_sender_timeout = '{wal_sender_timeout}'")
            return stack, prepare(pipeline)

        yield make


def _addresses(stack: Stack) -> Addresses:
    addresses = stack.addresses()
    assert addresses
    return addresses

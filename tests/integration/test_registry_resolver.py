"""Ids for the publisher from a registry over real HTTP that goes away, hangs and comes back (faults D1, D3)."""

import time
from collections.abc import Callable, Iterator

import pytest

from cdc.config.settings import SchemaRegistry
from cdc.registry.client import Registry
from cdc.registry.errors import RegistryError
from cdc.registry.resolver import Resolver
from tests.registry import Double, Fault

A = '{"type":"record","name":"shop.A","fields":[{"name":"x","type":"int"}]}'


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as double:
        yield double


@pytest.fixture
def resolve() -> Iterator[Callable[..., Resolver]]:
    made: list[tuple[Resolver, Registry]] = []

    def build(url: str, auto_register: bool = False) -> Resolver:
        registry = Registry(SchemaRegistry(url=url, timeout_seconds=0.5))
        made.append((Resolver(registry, "topic-record-name", auto_register, lambda _: (A, ())), registry))
        return made[-1][0]

    yield build
    for resolver, registry in made:
        resolver.close()
        registry.close()


def until_known(resolver: Resolver, topic: str) -> bytes:
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at:
        if header := resolver.ask(topic, "shop.A"):
            return header
        time.sleep(0.01)
    raise AssertionError("never resolved")


def test_ids_in_use_outlive_the_registry_and_a_new_one_waits_for_it(
    double: Double, resolve: Callable[..., Resolver]
) -> None:
    resolver = resolve(double.url, auto_register=True)
    header = until_known(resolver, "t1")
    double.fault = "refuse"
    give_up_at = time.monotonic() + 1
    while time.monotonic() < give_up_at:
        assert resolver.ask("t1", "shop.A") == header
        assert resolver.ask("t2", "shop.A") is None
        time.sleep(0.01)
    double.fault = None
    assert until_known(resolver, "t2") == header
    assert sorted(double.store.subjects) == ["t1-shop.A", "t2-shop.A"]


def test_asking_returns_while_the_request_hangs(double: Double, resolve: Callable[..., Resolver]) -> None:
    resolver = resolve(double.url, auto_register=True)
    double.fault = "hang"
    assert resolver.ask("t", "shop.A") is None
    while not double.requests:
        time.sleep(0.005)
    for _ in range(1000):
        assert resolver.ask("t", "shop.A") is None
    assert len(double.requests) < 100  # were each of them waited for, there would be one for each
    double.fault = None
    assert until_known(resolver, "t") == b"\x00\x00\x00\x00\x01"


@pytest.mark.parametrize(
    ("fault", "phrase"), [("other-schema", "is not the contract"), ("401", "credentials|username"), ("422", "mode")]
)
def test_what_waiting_does_not_help_comes_out_of_ask(
    double: Double, resolve: Callable[..., Resolver], fault: Fault, phrase: str
) -> None:
    resolver = resolve(double.url, auto_register=True)
    double.fault = fault
    with pytest.raises(RegistryError, match=phrase):
        until_known(resolver, "t")


def test_a_schema_that_nobody_registered_is_not_registered_by_start(
    double: Double, resolve: Callable[..., Resolver]
) -> None:
    with pytest.raises(RegistryError, match="run: cdc-publisher schema register"):
        until_known(resolve(double.url), "t")
    assert double.store.subjects == {}


def test_stopping_does_not_wait_for_a_request_that_hangs(double: Double, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(SchemaRegistry(url=double.url, timeout_seconds=3600))  # longer than this test may take
    resolver = Resolver(registry, "topic-record-name", False, lambda _: (A, ()))
    double.fault = "hang"
    resolver.ask("t", "shop.A")
    while not double.requests:
        time.sleep(0.005)
    resolver.close()
    registry.close()
    double.fault = None
    assert not caplog.records

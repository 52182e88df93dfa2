"""Ids for the publisher: asked without waiting, found once, kept for ever."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from cdc.avro.subjects import Strategy
from cdc.registry import resolver
from cdc.registry.client import Reference, Registered
from cdc.registry.errors import RegistryError, RegistryUnavailable
from cdc.registry.resolver import Resolver

Make = Callable[..., Resolver]


class Twin:
    """A registry in memory, of which the test decides what it does."""

    url = "http://twin"

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.failing: dict[str, Exception] = {}
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked: list[tuple[str, str]] = []

    def lookup(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered | None:
        self.asked.append(("lookup", subject))
        assert self.may_answer.wait(10)
        if subject in self.failing:
            raise self.failing[subject]
        number = self.known.get(subject)
        return None if number is None else Registered(subject, 1, number, f"{text}{len(references)}")

    def register(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered:
        self.asked.append(("register", subject))
        self.known.setdefault(subject, 0x01020304)
        return Registered(subject, 1, self.known[subject], f"{text}{len(references)}")


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Twin:
    monkeypatch.setattr("cdc.backoff.FIRST_SECONDS", 0.001)
    monkeypatch.setattr("cdc.backoff.LONGEST_SECONDS", 0.005)
    return Twin()


@pytest.fixture
def make(twin: Twin) -> Iterator[Make]:
    made: list[Resolver] = []

    def build(strategy: Strategy = "topic-record-name", auto_register: bool = False) -> Resolver:
        contracts: dict[str, tuple[str, Sequence[Reference]]] = {"shop.A": ("text", ()), "shop.B": ("text", ())}
        made.append(Resolver(twin, strategy, auto_register, contracts.__getitem__))
        return made[-1]

    yield build
    twin.may_answer.set()
    for each in made:
        each.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "cdc-registry"]


def until_known(asked: Resolver, topic: str = "t", contract: str = "shop.A") -> bytes:
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        header = asked.ask(topic, contract)
        if header is not None:
            return header
        time.sleep(0.001)
    raise AssertionError("never resolved")


def test_the_header_is_a_zero_and_the_id_in_four_bytes(twin: Twin, make: Make) -> None:
    twin.known["t-shop.A"] = 0x00ABCDEF
    assert until_known(make()) == b"\x00\x00\xab\xcd\xef"


def test_asking_does_not_wait_and_asks_the_registry_once(twin: Twin, make: Make) -> None:
    twin.known["t-shop.A"] = 7
    twin.may_answer.clear()
    asked = make()
    assert [asked.ask("t", "shop.A") for _ in range(100)] == [None] * 100
    twin.may_answer.set()
    until_known(asked)
    for _ in range(10):
        until_known(asked)
    assert twin.asked == [("lookup", "t-shop.A")]


def test_topics_that_share_a_subject_share_its_id(twin: Twin, make: Make) -> None:
    twin.known["shop.A"] = 7
    asked = make("record-name")
    assert until_known(asked, "t1") == until_known(asked, "t2")
    assert twin.asked == [("lookup", "shop.A")]


def test_two_contracts_of_one_subject_are_asked_for_apart(twin: Twin, make: Make) -> None:
    twin.known["t-value"] = 7
    asked = make("topic-name")
    until_known(asked, "t", "shop.A")
    until_known(asked, "t", "shop.B")
    assert twin.asked == [("lookup", "t-value")] * 2


def test_an_outage_is_waited_out_with_one_warning(
    twin: Twin, make: Make, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    twin.known["t-shop.A"] = 7
    twin.failing["t-shop.A"] = RegistryUnavailable("registry http://twin: no answer")
    asked = make()
    while len(twin.asked) < 10:
        assert asked.ask("t", "shop.A") is None
        time.sleep(0.001)
    twin.failing.clear()
    until_known(asked)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == ["registry http://twin: no answer"]


def test_an_outage_is_told_again_after_a_while(
    twin: Twin, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "WARNING_SECONDS", 0.0)
    twin.failing["t-shop.A"] = RegistryUnavailable("down")
    asked = make()
    while len([record for record in caplog.records if record.levelno == logging.WARNING]) < 3:
        assert asked.ask("t", "shop.A") is None
        time.sleep(0.001)


def test_the_trouble_of_one_subject_does_not_hold_up_another(twin: Twin, make: Make) -> None:
    twin.failing["t-shop.A"] = RegistryUnavailable("50002 for this one only")
    twin.known["t-shop.B"] = 8
    asked = make()
    assert asked.ask("t", "shop.A") is None
    assert until_known(asked, "t", "shop.B") == b"\x00\x00\x00\x00\x08"
    assert asked.ask("t", "shop.A") is None


def until_refused(asked: Resolver, error: type[Exception]) -> str:
    with pytest.raises(error) as raised:
        until_known(asked)
    return str(raised.value)


def test_a_schema_that_is_not_registered_is_refused_with_the_command_that_helps(twin: Twin, make: Make) -> None:
    asked = make()
    said = until_refused(asked, RegistryError)
    assert said == (
        "registry http://twin: contract shop.A is not registered under subject t-shop.A; "
        "run: cdc-publisher schema register"
    )
    twin.known["t-shop.A"] = 7
    assert until_known(asked) == b"\x00\x00\x00\x00\x07"


def test_what_the_registry_refuses_for_good_comes_out_of_ask(twin: Twin, make: Make) -> None:
    twin.failing["t-shop.A"] = RegistryError("the schema of that id is not the contract")
    assert "not the contract" in until_refused(make(), RegistryError)


def test_an_unknown_contract_comes_out_of_ask(make: Make) -> None:
    asked = make()
    with pytest.raises(KeyError, match=r"shop\.C"):
        until_known(asked, "t", "shop.C")


def test_auto_register_registers_what_is_missing_only(twin: Twin, make: Make) -> None:
    twin.known["t-shop.B"] = 8
    asked = make(auto_register=True)
    assert until_known(asked) == b"\x00\x01\x02\x03\x04"
    assert until_known(asked, "t", "shop.B") == b"\x00\x00\x00\x00\x08"
    assert twin.asked == [("lookup", "t-shop.A"), ("register", "t-shop.A"), ("lookup", "t-shop.B")]


def test_close_ends_the_thread_also_while_it_waits_to_try_again(
    twin: Twin, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.backoff.FIRST_SECONDS", 3600)  # longer than this test may take
    monkeypatch.setattr("cdc.backoff.LONGEST_SECONDS", 3600)
    twin.failing["t-shop.A"] = RegistryUnavailable("down")
    asked = make()
    asked.ask("t", "shop.A")
    while not twin.asked:
        time.sleep(0.001)
    asked.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "cdc-registry"]


def test_close_without_a_question_starts_nothing(make: Make) -> None:
    make().close()
    assert "cdc-registry" not in [thread.name for thread in threading.enumerate()]

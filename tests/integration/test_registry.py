"""The registry's client against real HTTP: a double, or the registry that CDC_TEST_SCHEMA_REGISTRY_URL names.

Faults are the double's alone.
"""

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from cdc.config.settings import SchemaRegistry
from cdc.errors import CdcError, ConfigError
from cdc.registry.canonical import same_schema
from cdc.registry.client import ATTEMPTS, Reference, Registry
from cdc.registry.errors import RegistryError, RegistryUnavailable
from tests.registry import Double, Fault

Open = Callable[..., Registry]


def record(name: str, *fields: str, **more: Any) -> str:
    """A record of int fields; `more` is on the first of them."""
    described = [{"name": field, "type": "int"} for field in fields]
    described[0] |= more
    return json.dumps({"type": "record", "name": name, "namespace": "shop", "fields": described})


A, B = record("A", "x"), record("B", "y")


def grown(new: str, old: Sequence[str], level: str) -> list[str]:
    """The one rule of BACKWARD that these tests need: a new field has a default."""
    before = {field["name"] for text in old for field in json.loads(text)["fields"]}
    bad = [each["name"] for each in json.loads(new)["fields"] if each["name"] not in before and "default" not in each]
    return [f"{{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description: {bad}}}", f"{level}"] if bad else []


@pytest.fixture
def double() -> Iterator[Double]:
    with Double(grown) as double:
        yield double


@pytest.fixture
def open_registry() -> Iterator[Open]:
    opened: list[Registry] = []

    def build(url: str, **settings: Any) -> Registry:
        opened.append(Registry(SchemaRegistry(url=url, **{"timeout_seconds": 10.0, **settings})))
        return opened[-1]

    yield build
    for registry in opened:
        registry.close()


@pytest.fixture
def registry(open_registry: Open, request: pytest.FixtureRequest) -> Registry:
    """The real one where there is one."""
    url = os.environ.get("CDC_TEST_SCHEMA_REGISTRY_URL")
    return open_registry(url or request.getfixturevalue("double").url)


@pytest.fixture
def subject() -> str:
    """One that nobody had before; with a character that a path must not hold as it is."""
    return f"cdc test/{secrets.token_hex(4)}-shop.A"


@pytest.fixture
def name() -> str:
    """Of a schema that nobody had before."""
    return f"T{secrets.token_hex(4)}"


def test_a_schema_is_found_after_it_is_registered_and_not_before(registry: Registry, subject: str, name: str) -> None:
    text = record(name, "x")
    assert registry.lookup(subject, text) is None
    assert registry.latest(subject) is None
    registered = registry.register(subject, text)
    assert (registered.subject, registered.version) == (subject, 1)
    assert registry.lookup(subject, text) == registry.latest(subject) == registered
    assert registry.register(subject, text) == registered
    assert same_schema(registry.by_id(registered.id), text)
    assert subject in registry.subjects()


def test_one_schema_has_one_id_under_all_subjects(registry: Registry, subject: str, name: str) -> None:
    text = record(name, "x")
    assert registry.register(subject, text).id == registry.register(f"{subject}2", text).id


def test_a_second_schema_is_a_new_version_with_another_id(registry: Registry, subject: str, name: str) -> None:
    first = registry.register(subject, record(name, "x"))
    longer = record(name, "y", "x", default=0)
    assert registry.lookup(subject, longer) is None
    second = registry.register(subject, longer)
    assert (second.version, second.id != first.id) == (2, True)
    assert registry.latest(subject) == second


def test_a_text_that_is_spelt_otherwise_is_the_same_schema(registry: Registry, subject: str, name: str) -> None:
    registered = registry.register(subject, record(name, "x"))
    respelt = json.dumps(dict(reversed(list(json.loads(record(name, "x")).items()))), indent=3)
    found = registry.lookup(subject, respelt)
    assert found is not None
    assert found.id == registered.id


def test_what_does_not_fit_is_told_by_the_registry_and_refused(registry: Registry, subject: str, name: str) -> None:
    assert registry.problems(subject, record(name, "x")) == []
    first = registry.register(subject, record(name, "x"))
    assert registry.problems(subject, record(name, "y", "x", default=0)) == []
    misfit = record(name, "x", "z")
    problems = registry.problems(subject, misfit)
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in " ".join(problems)
    with pytest.raises(RegistryError, match="incompatible") as raised:
        registry.register(subject, misfit)
    assert raised.value.status == 409
    assert f"registered is version 1 with id {first.id}" in str(raised.value)
    assert "compatibility level" in raised.value.hint


def test_case_e6_incompatibility_without_a_reason_is_told_alike_by_check_and_register(
    double: Double, open_registry: Open, subject: str, name: str
) -> None:
    registry = open_registry(double.url)
    first = registry.register(subject, record(name, "x"))
    misfit = record(name, "x", "z")
    double.mute = True
    (problem,) = registry.problems(subject, misfit)
    with pytest.raises(RegistryError) as raised:
        registry.register(subject, misfit)
    for told in (problem, str(raised.value)):
        assert "no reason is given (HTTP 409)" in told
        assert f"registered is version 1 with id {first.id}" in told
        assert "cannot read what version 1 wrote: " in told
        assert "compatibility level" in told


def test_what_is_no_schema_is_refused(registry: Registry, subject: str) -> None:
    with pytest.raises(RegistryError, match="HTTP 422, 42201"):
        registry.register(subject, '{"type":"record"}')


def test_a_schema_may_refer_to_another_subject(registry: Registry, subject: str, name: str) -> None:
    part = registry.register(f"{subject}-part", record(name, "x"))
    whole = json.dumps(
        {"type": "record", "name": f"{name}Whole", "fields": [{"name": "part", "type": f"shop.{name}"}]}
    )  # fmt: skip
    references = [Reference(f"shop.{name}", part.subject, part.version)]
    registered = registry.register(subject, whole, references)
    assert registry.lookup(subject, whole, references) == registered
    assert registry.problems(subject, whole, references) == []


FAULTS: dict[Fault, tuple[type[CdcError], str]] = {
    "refuse": (RegistryUnavailable, "no answer: .*Connection refused.*check that it runs"),
    "hang": (RegistryUnavailable, "no answer: .*timed out"),
    "500": (RegistryUnavailable, r"Timed out waiting for the store \(HTTP 500, 50002\)"),
    "503": (RegistryUnavailable, "HTTP 503"),
    "429": (RegistryUnavailable, "HTTP 429.*fewer requests"),
    "half-body": (RegistryUnavailable, "no answer: .*without sending complete message body"),
    "half-json": (RegistryUnavailable, "the answer cannot be read: (not JSON|half an error)"),
    "not-json": (RegistryUnavailable, "the answer cannot be read: not JSON"),
    "no-id": (RegistryUnavailable, "None is not an id"),
    "401": (RegistryError, "HTTP 401.*check username and password, or token"),
    "403": (RegistryError, "HTTP 403.*the rights of that user"),
    "404": (RegistryError, r"check \[schema_registry\] url"),
    "409": (RegistryError, "HTTP 409.*change the contract"),
    "422": (RegistryError, "read-only mode.*HTTP 422, 42205.*correct the contract"),
    "wrong-id": (RegistryError, "answered id 2, but the schema of that id is not the contract"),
    "other-schema": (RegistryError, "answered id 1, but the schema of that id is not the contract"),
}


def test_each_fault_of_the_double_has_its_message() -> None:
    assert {*FAULTS, "slow"} == set(get_args(Fault))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["lookup", "register"])
def test_each_fault_is_one_clear_line_and_passes(double: Double, open_registry: Open, fault: Fault, call: str) -> None:
    registry = open_registry(double.url, timeout_seconds=0.4)
    expected = [registry.register("s", A), registry.register("s2", B)][0]
    kind, phrase = FAULTS[fault]
    double.fault = fault
    with pytest.raises(kind, match=phrase) as raised:
        getattr(registry, call)("s", A)
    assert "\n" not in str(raised.value)
    assert double.url in str(raised.value)
    assert "subject s" in str(raised.value)
    assert raised.value.hint
    double.fault = None
    assert registry.lookup("s", A) == expected  # nothing that was wrong is remembered


@pytest.mark.parametrize("call", ["problems", "latest", "by_id", "subjects"])
@pytest.mark.parametrize("fault", ["500", "401", "half-json", "refuse"])
def test_each_call_fails_with_our_errors(double: Double, open_registry: Open, fault: Fault, call: str) -> None:
    registry = open_registry(double.url, timeout_seconds=0.4)
    double.fault = fault
    arguments: dict[str, tuple[Any, ...]] = {"problems": ("s", A), "latest": ("s",), "by_id": (1,)}
    with pytest.raises(FAULTS[fault][0], match=FAULTS[fault][1]):
        getattr(registry, call)(*arguments.get(call, ()))


def test_what_passes_by_itself_is_tried_again_but_not_for_ever(double: Double, open_registry: Open) -> None:
    double.fault = "500"
    with pytest.raises(RegistryUnavailable):
        open_registry(double.url).subjects()
    assert double.paths() == ["GET /subjects"] * ATTEMPTS


def test_what_does_not_pass_is_not_tried_again(double: Double, open_registry: Open) -> None:
    double.fault = "401"
    with pytest.raises(RegistryError):
        open_registry(double.url).subjects()
    assert double.paths() == ["GET /subjects"]


def test_a_short_fault_is_not_noticed(double: Double, open_registry: Open) -> None:
    double.fault = "503"
    lift = threading.Timer(0.1, lambda: setattr(double, "fault", None))
    lift.start()
    assert open_registry(double.url).subjects() == []
    lift.join()


def test_a_slow_registry_is_waited_for(double: Double, open_registry: Open) -> None:
    double.fault = "slow"
    assert open_registry(double.url).lookup("s", A) is None


def test_no_attempt_starts_after_the_time_is_over(double: Double, open_registry: Open) -> None:
    double.fault = "hang"
    with pytest.raises(RegistryUnavailable):
        open_registry(double.url, timeout_seconds=0.3).subjects()
    assert double.paths() == ["GET /subjects"]


def test_the_second_of_several_addresses_is_tried(double: Double, open_registry: Open) -> None:
    with Double() as gone:
        address = gone.url
    assert open_registry(f"{address}, {double.url}").subjects() == []


def test_credentials_are_sent_and_wrong_ones_refused(open_registry: Open) -> None:
    with Double(basic="user:pass:word") as basic:
        assert open_registry(basic.url, username="user", password="pass:word").subjects() == []
        assert open_registry(basic.url.replace("http://", "http://user:pass%3Aword@")).subjects() == []
        with pytest.raises(RegistryError, match="401"):
            open_registry(basic.url, username="user", password="hunter2").subjects()
        with pytest.raises(RegistryError, match="401"):
            open_registry(basic.url).subjects()
    with Double(bearer="canary") as bearer:
        assert open_registry(bearer.url, token="canary").subjects() == []
        with pytest.raises(RegistryError, match="401"):
            open_registry(bearer.url, token="hunter2").subjects()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "hang"])
def test_no_secret_is_logged_or_told(
    double: Double, open_registry: Open, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    registry = open_registry(double.url.replace("http://", "http://user:hunter2@"), timeout_seconds=0.3)
    double.fault = fault
    told = ""
    try:
        registry.register("s", A)
    except CdcError as error:
        told = str(error)
    assert "hunter2" not in told + caplog.text
    assert "hunter2" not in registry.url


def test_settings_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="url is required"):
        Registry(SchemaRegistry())
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigError) as raised:
        Registry(SchemaRegistry(url="https://h", ssl_ca=missing, ssl_certificate=missing))
    assert len(raised.value.problems) == 2
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="ssl_ca"):
        Registry(SchemaRegistry(url="https://h", ssl_ca=str(tmp_path / "bad.pem")))

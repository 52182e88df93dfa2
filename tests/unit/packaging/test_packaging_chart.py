"""The Helm chart: what it makes is what Kubernetes takes, and says what the program understands."""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator

from cdc.config.loading import load
from cdc.config.settings import Settings, require
from tests.chart import CHART, KUBERNETES, RENDERED, ROOT, VALUES, Manifest, fingerprint, helm, manifests, template

TEXT: Final = RENDERED.read_text()
MANIFESTS: Final = manifests(TEXT)
DEFAULTS: Final[dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text())
EVERYTHING: Final[dict[str, Any]] = yaml.safe_load(VALUES.read_text())
FLEET: Final[dict[str, Any]] = {
    "settings": '[kafka]\n"bootstrap.servers" = "kafka:9092"\n',
    "fleet": {
        "units": {"orders": '[postgres]\ndsn = "postgresql://cdc@db/orders"\nslot = "orders"\n'},
        "secrets": {"orders": {"CDC_POSTGRES__PASSWORD": {"name": "orders-cdc", "key": "password"}}},
    },
}
OPERATOR: Final = {"PrometheusRule", "ServiceMonitor"}
needs_helm: Final = pytest.mark.skipif(helm() is None, reason="helm is not on PATH")


def the(kind: str, suffix: str = "") -> Manifest:
    (found,) = (m for m in MANIFESTS if m["kind"] == kind and m["metadata"]["name"] == f"shop-cdc-publisher{suffix}")
    return found


def job() -> dict[str, Any]:
    """The pod of the job that sets up, which is made by hand."""
    template: dict[str, Any] = the("CronJob", "-setup")["spec"]["jobTemplate"]["spec"]["template"]
    return template


PUBLISHER: Final[dict[str, Any]] = the("Deployment")["spec"]["template"]
PODS: Final = {"publisher": PUBLISHER["spec"], "setup": job()["spec"], "test": the("Pod", "-ready")["spec"]}


def problems(values: dict[str, Any]) -> list[str]:
    schema = json.loads((CHART / "values.schema.json").read_text())
    Draft7Validator.check_schema(schema)
    return [error.message for error in Draft7Validator(schema).iter_errors(values)]


def test_what_is_kept_was_made_of_the_chart_as_it_is() -> None:
    assert f" {fingerprint()}\n" in TEXT, "the chart has changed: python -m tests.chart"


@needs_helm
def test_helm_makes_what_is_kept() -> None:
    done = template("--values", str(VALUES))
    assert done.returncode == 0, done.stderr
    assert manifests(done.stdout) == MANIFESTS


@needs_helm
def test_with_the_least_values_there_is_less_and_kubernetes_takes_it() -> None:
    given = "CDC_POSTGRES__DSN=postgresql://cdc@db/shop,env.CDC_KAFKA__BOOTSTRAP_SERVERS=kafka:9092"
    done = template("--set", f"env.{given},replicas=1,serviceAccount.create=false")
    assert done.returncode == 0, done.stderr
    least = manifests(done.stdout)
    assert {each["kind"] for each in least} == {"ConfigMap", "CronJob", "Deployment", "Pod", "Service"}
    for manifest in least:
        assert kubernetes_validate.validate(manifest, KUBERNETES, strict=True) == KUBERNETES


@needs_helm
def test_without_what_is_required_helm_says_what_is_missing() -> None:
    assert "set [postgres] dsn in settings" in template().stderr
    done = template("--set", "secrets.from.CDC_POSTGRES__DSN.name=a,secrets.from.CDC_POSTGRES__DSN.key=b")
    assert 'set [kafka] "bootstrap.servers" in settings' in done.stderr


@needs_helm
def test_with_units_a_release_runs_a_fleet_over_one_folder(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(FLEET))
    assert problems(FLEET) == []
    done = template("--values", str(values))
    assert done.returncode == 0, done.stderr
    made = manifests(done.stdout)
    for manifest in made:
        assert kubernetes_validate.validate(manifest, KUBERNETES, strict=True) == KUBERNETES
    assert "CronJob" not in {each["kind"] for each in made}
    (deployment,) = (each for each in made if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][-3:] == ["fleet", "start", "/etc/cdc/units"]
    assert {"name": "CDC_FLEET__SECRETS", "value": "/run/secrets/units"} in container["env"]
    (units,) = (each for each in made if each["metadata"]["name"].endswith("-units"))
    assert units["data"] == {"orders.toml": FLEET["fleet"]["units"]["orders"]}
    (secrets,) = (volume for volume in pod["volumes"] if volume["name"] == "unit-secrets")
    item = {"key": "password", "path": "orders/CDC_POSTGRES__PASSWORD"}
    assert secrets["projected"]["sources"] == [{"secret": {"name": "orders-cdc", "items": [item]}}]
    values.write_text(yaml.safe_dump({**FLEET, "fleet": {**FLEET["fleet"], "units": {"cart": "x"}}}))
    assert "fleet.secrets.orders is of no unit" in template("--values", str(values)).stderr


def test_the_schema_takes_the_defaults_and_everything() -> None:
    assert problems(DEFAULTS) == []
    assert problems({**DEFAULTS, **EVERYTHING}) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"replica": 2},
        {"replicas": "two"},
        {"env": {"CDC_POSTGRES_SLOT": "one underscore"}},
        {"env": {"CDC_HTTP__LISTEN": "has a value of its own"}},
        {"secrets": {"from": {"CDC_POSTGRES__PASSWORD": {"name": "no key"}}}},
        {"secrets": {"create": {"CDC_POSTGRES__PASSWORD_FILE": "is made by the chart"}}},
        {"contracts": {"files": {"a.avsc": "{}"}, "configMap": "both"}},
        {"contracts": {"files": {"a.json": "{}"}}},
        {"image": {"repository": "x", "digest": "latest"}},
    ],
    ids=str,
)
def test_the_schema_refuses(wrong: dict[str, Any]) -> None:
    assert problems(DEFAULTS | wrong)


def test_every_value_is_in_the_schema_and_in_the_readme() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(DEFAULTS) == set(schema["properties"]) - {"global"}
    readme = (CHART / "README.md").read_text()
    assert [name for name in DEFAULTS if f"`{name}" not in readme] == []


@pytest.mark.parametrize("manifest", [m for m in MANIFESTS if m["kind"] not in OPERATOR], ids=lambda m: m["kind"])
def test_manifest_is_valid_for_kubernetes(manifest: Manifest) -> None:
    assert kubernetes_validate.validate(manifest, KUBERNETES, strict=True) == KUBERNETES


def test_the_schema_of_kubernetes_refuses_what_is_not_its_own() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(the("Deployment") | {"spec": {"replica": 1}}, KUBERNETES, strict=True)


def test_every_kind_is_made() -> None:
    kinds = {m["kind"] for m in MANIFESTS}
    assert kinds >= OPERATOR | {"Deployment", "CronJob", "PodDisruptionBudget", "NetworkPolicy", "Secret", "Pod"}
    assert kinds >= {"Service", "ServiceAccount", "ConfigMap"}


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_each_pod_runs_with_the_least_rights(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in (ROOT / "Dockerfile").read_text()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", ["publisher", "setup"])
def test_the_program_takes_what_a_pod_gives_it(name: str, tmp_path: Path) -> None:
    """Its file and its environment are settings; each secret is a file that the pod has, outside the environment."""
    pod = PODS[name]
    (container,) = pod["containers"]
    file = tmp_path / "cdc-publisher.toml"
    file.write_text(the("ConfigMap")["data"]["cdc-publisher.toml"])
    environment = {each["name"]: each["value"] for each in container["env"]}
    (sources,) = (volume["projected"]["sources"] for volume in pod["volumes"] if volume["name"] == "secrets")
    mounted = {item["path"] for source in sources for item in source["secret"].get("items", [])}
    mounted |= set(the("Secret")["data"])
    secrets = {name: value for name, value in environment.items() if name.endswith("_FILE")}
    assert {PurePosixPath(value).name for value in secrets.values()} == mounted
    for name, value in secrets.items():
        assert PurePosixPath(value) == PurePosixPath("/run/secrets/cdc") / name.removesuffix("_FILE")
        environment[name] = str(tmp_path / name)
        (tmp_path / name).write_text(f"canary of {name}\n")
    settings = require(load(file, environ=environment))
    assert settings.kafka["sasl.password"] == "canary of CDC_KAFKA__SASL_PASSWORD_FILE"
    assert settings.http.listen == ":8080"
    assert "canary" not in TEXT


def test_a_stop_may_drain_before_the_pod_is_killed() -> None:
    pod = PODS["publisher"]
    drain = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}["CDC_DELIVERY__DRAIN_SECONDS"]
    assert float(drain) == Settings().delivery.drain_seconds
    assert pod["terminationGracePeriodSeconds"] > float(drain) + 10


def test_probes_ask_the_paths_that_the_publisher_answers() -> None:
    (container,) = PODS["publisher"]["containers"]
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    # A restart fixes a blocked loop, not an unavailable Kafka: liveness must not depend on readiness.
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


def test_a_new_version_stands_by_before_an_old_one_goes() -> None:
    spec = the("Deployment")["spec"]
    assert spec["replicas"] == DEFAULTS["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert the("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_only_publishers_are_selected() -> None:
    selector = the("Service")["spec"]["selector"]
    labels = {
        "publisher": PUBLISHER["metadata"]["labels"],
        "setup": job()["metadata"]["labels"],
        "test": the("Pod", "-ready")["metadata"]["labels"],
    }
    assert [name for name, given in labels.items() if selector.items() <= given.items()] == ["publisher"]
    for kind in ("PodDisruptionBudget", "ServiceMonitor"):
        assert the(kind)["spec"]["selector"]["matchLabels"] == selector
    assert the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == selector


def test_nothing_makes_a_slot_unless_a_person_says_so() -> None:
    assert the("CronJob", "-setup")["spec"]["suspend"] is True
    hooks = [m["metadata"].get("annotations", {}).get("helm.sh/hook") for m in MANIFESTS]
    assert set(hooks) == {None, "test"}


def test_a_change_of_settings_contracts_or_secrets_starts_anew() -> None:
    annotations = PUBLISHER["metadata"]["annotations"]
    assert annotations["cdc-publisher/settings"] == hashlib.sha256(EVERYTHING["settings"].encode()).hexdigest()
    assert {"cdc-publisher/contracts", "cdc-publisher/secrets"} <= annotations.keys()


@pytest.mark.parametrize(("copy", "source"), [("alerts.yml", "prometheus"), ("cdc-publisher.json", "grafana")])
def test_the_chart_has_the_rules_and_the_dashboard_as_they_are(copy: str, source: str) -> None:
    # A chart cannot hold what is outside of its folder.
    assert (CHART / "files" / copy).read_bytes() == (ROOT / "deploy" / source / copy).read_bytes()


def test_the_rules_of_a_release_are_about_its_own_publishers() -> None:
    rules = [rule for group in the("PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert 'job="cdc-publisher"' not in rule["expr"]
        assert 'namespace="shop", job="shop-cdc-publisher"' in " ".join(rule["expr"].split())
        assert rule["annotations"]["runbook_url"].startswith("https://wiki.example/cdc-publisher/operating#")

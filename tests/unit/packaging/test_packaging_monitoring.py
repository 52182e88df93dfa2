"""Alert rules, dashboard and Prometheus' settings use metrics that the publisher reports."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import promql_parser
import pytest
import yaml

from cdc.http.prometheus import NAMES as OF_PUBLISHER
from cdc.http.prometheus import OF_FLEET
from cdc.telemetry.health import State
from tests import ROOT

PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
GRAFANA: Final = ROOT / "deploy" / "grafana"
RULES: Final[list[dict[str, Any]]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: Final[dict[str, Any]] = json.loads((GRAFANA / "cdc-publisher.json").read_text())
NAMES: Final = OF_PUBLISHER | OF_FLEET
SCRAPED: Final = {"up", "ALERTS"}  # Prometheus' own
PROCESS: Final = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
"""Of prometheus-client's ProcessCollector."""


def expressions(part: Any) -> Iterator[str]:
    """Every PromQL expression of the dashboard, also of variables, with what Grafana fills in."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "expr" or (name == "query" and isinstance(value, str) and "(" in value):
                found = re.sub(r"^label_values\((.*), \w+\)$", r"\1", value)
                yield found.replace("$__rate_interval", "1m")
            else:
                yield from expressions(value)
    elif isinstance(part, list):
        for value in part:
            yield from expressions(value)


SHOWN: Final = list(dict.fromkeys(expressions(DASHBOARD)))


def selectors(part: Any) -> Iterator[promql_parser.VectorSelector]:
    """All within an expression."""
    if isinstance(part, promql_parser.VectorSelector):
        yield part
    elif isinstance(part, promql_parser.MatrixSelector):
        yield part.vector_selector
    for name in ("expr", "lhs", "rhs", "param"):
        if (inner := getattr(part, name, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(part, "args", None) or ():
        yield from selectors(inner)


def matchers(selector: promql_parser.VectorSelector) -> dict[str, str]:
    return {matcher.name: matcher.value for matcher in selector.matchers.matchers}


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in RULES), *SHOWN])
def test_only_metrics_and_states_that_there_are_are_asked_for(expression: str) -> None:
    found = list(selectors(promql_parser.parse(expression)))
    assert found
    names = {selector.name for selector in found}
    assert names <= NAMES | SCRAPED | PROCESS
    # The parser and a plain search for names see the same: nothing within is overlooked.
    assert {name for name in NAMES if re.search(rf"\b{name}\b", expression)} == names & NAMES
    for selector in found:
        if selector.name == "cdc_state" and "state" in matchers(selector):
            assert matchers(selector)["state"] in set(State)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {selector.name for expression in SHOWN for selector in selectors(promql_parser.parse(expression))}
    left_out = {
        "cdc_last_dead_letter_timestamp_seconds",
        "cdc_ready",
        "cdc_recovery_sent_events",
        "cdc_recovery_missing_events",
        "cdc_delivery_seconds_sum",
        "cdc_delivery_seconds_count",
        "cdc_encode_seconds_bucket",
    }
    assert NAMES - shown <= left_out


def test_the_dashboard_names_every_state() -> None:
    (panel,) = (panel for panel in DASHBOARD["panels"] if panel["title"] == "State")
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    numbered = {text["text"]: int(number) for number, text in mapping["options"].items()}
    (expression,) = (target["expr"] for target in panel["targets"])
    for state in State:
        assert f'state="{state}"' in expression
    assert len(numbered) == len(State)


def test_panels_of_the_dashboard_do_not_cover_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_read(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/operating.md#{rule['alert'].lower()}"
    for selector in selectors(promql_parser.parse(rule["expr"])):
        # So that the chart can narrow each to its own release.
        assert matchers(selector)["job"] == "cdc-publisher"


def test_case_h5_an_alert_on_a_counter_sees_what_was_counted_before_the_first_scrape() -> None:
    for rule in RULES:
        for counter in re.findall(r"increase\((\w+)\{", rule["expr"]):
            guard = rf"{counter}\{{[^}}]*\}} > \d+\s+unless {counter}\{{[^}}]*\}} offset 15m"
            assert re.search(guard, rule["expr"]), f"{rule['alert']}: increase() of {counter} misses its first value"


def test_every_alert_has_its_section_in_operating() -> None:
    headings = re.findall(r"^#+ (\w+)$", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    assert {rule["alert"] for rule in RULES} <= set(headings)


def test_every_alert_fires_in_the_tests_for_promtool() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())
    assert tests["rule_files"] == ["alerts.yml"]
    samples = [s for t in tests["tests"] for p in t["promql_expr_test"] for s in p["exp_samples"]]
    fired = set(re.findall(r'alertname="(\w+)"', json.dumps([s["labels"] for s in samples]).replace("\\", "")))
    assert fired == {rule["alert"] for rule in RULES}


def test_prometheus_scrapes_the_publishers_of_compose_as_the_rules_expect() -> None:
    settings = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert settings["rule_files"] == ["alerts.yml"]
    (job,) = settings["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert (job["job_name"], found["names"], found["port"]) == ("cdc-publisher", ["publisher"], 8080)


def test_grafana_finds_its_data_source_and_the_dashboard_where_compose_mounts_them() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/dashboards.yml").read_text())["providers"]
    assert mounts["./deploy/grafana"] == provider["options"]["path"]
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/cdc-publisher.json"
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose

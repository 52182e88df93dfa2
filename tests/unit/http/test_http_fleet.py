"""The endpoint of an instance of a fleet: one page, one status, one exposition for all units."""

import json

from cdc.http.prometheus import OF_FLEET
from cdc.status.fleet import parse
from tests import specimen
from tests.unit.http.test_http_application import ask
from tests.unit.http.test_http_metrics import OPENMETRICS, families, series


def test_every_series_of_a_unit_has_its_label_and_each_family_is_described_once() -> None:
    for accept in ("*/*", OPENMETRICS):
        found = families(specimen.fleet(), accept)
        for family in found.values():
            if family.name.startswith("cdc_") and not family.name.startswith("cdc_fleet_"):
                assert {sample.labels["unit"] for sample in family.samples} <= {"shop", "cart"}
        text = ask(specimen.fleet(), "/metrics", accept=accept).text
        described = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
        assert len(described) == len({*described})


def test_a_fleet_has_the_series_of_a_publisher_and_its_own() -> None:
    names = {name for name in series(families(specimen.fleet()).values()) if name.startswith("cdc_")}
    of_publisher = {name for name in series(families(specimen.metrics()).values()) if name.startswith("cdc_")}
    assert names == of_publisher | OF_FLEET


def test_units_are_counted_by_state_and_those_elsewhere_are_not_assigned() -> None:
    found = families(specimen.fleet())
    states = {sample.labels["state"]: sample.value for sample in found["cdc_fleet_units"].samples}
    assert (states["working"], states["elsewhere"], states["unregistered"], states["failed"]) == (2, 1, 1, 0)
    assigned = {sample.labels["unit"]: sample.value for sample in found["cdc_fleet_unit_assigned"].samples}
    assert assigned == {"shop": 1, "cart": 1, "zoo": 0}  # a unit without a partition is not in the register


def test_probes_follow_the_instance() -> None:
    assert (ask(specimen.fleet(), "/readyz").status, ask(specimen.fleet(), "/livez").status) == (200, 200)
    refused = ask(specimen.fleet(ready=False), "/readyz")
    assert refused.status == 503
    assert json.loads(refused.text) == {"ready": False, "summary": "not ready: a reason"}
    assert ask(specimen.fleet(ready=False), "/readyz", accept="text/plain").text.strip() == "not ready: a reason"
    assert ask(specimen.fleet(ready=False), "/livez").status == 503


def test_the_status_is_read_back_as_it_was_served() -> None:
    text = ask(specimen.fleet(), "/status").text
    document = parse(text.encode())
    assert document.served() == json.loads(text)
    assert document.units["shop"].status is not None
    assert document.units["shop"].status.totals.delivered == 30_000


def test_the_page_allows_its_own_script_only_and_puts_in_names_as_text() -> None:
    page = ask(specimen.fleet(), "/")
    assert page.status == 200
    assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert "innerHTML" not in page.text

"""Metrics: as Prometheus parses them, under the names that others rely on."""

import re
import threading
from collections.abc import Iterable

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from cdc.http.application import Application, Routes
from cdc.http.prometheus import NAMES
from cdc.telemetry.health import State
from cdc.telemetry.metrics import Metrics
from tests import ROOT, specimen
from tests.unit.http.test_http_application import ask

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"


def families(metrics: Metrics | Routes, accept: str = "*/*") -> dict[str, Metric]:
    """What is exposed, by its name."""
    application = metrics if isinstance(metrics, Routes) else Application(metrics, specimen.IDENTITY)
    reply = ask(application, "/metrics", accept=accept)
    assert reply.status == 200
    parse = openmetrics if reply.headers["Content-Type"].startswith("application/openmetrics-text") else prometheus
    return {family.name: family for family in parse(reply.text)}


def series(found: Iterable[Metric]) -> set[str]:
    return {sample.name for family in found for sample in family.samples}


def value(found: dict[str, Metric], family: str, sample: str | None = None, **labels: str) -> float:
    """The one sample with this name and these labels."""
    ((number),) = [
        each.value for each in found[family].samples if each.name == (sample or family) and each.labels == labels
    ]
    return number


@pytest.mark.parametrize("accept", ["*/*", OPENMETRICS])
def test_all_names_and_no_others_are_exposed_in_both_formats(accept: str) -> None:
    found = families(specimen.metrics(), accept)
    ours = {name for name in series(found.values()) if name.startswith("cdc_")}
    polled = {name for name in NAMES if name.startswith("cdc_polling_")}
    assert ours == NAMES - polled
    ours = {name for name in series(families(specimen.polling(), accept).values()) if name.startswith("cdc_")}
    of_wal = {"cdc_lag_bytes", "cdc_retained_wal_bytes", "cdc_retained_wal_limit_bytes", "cdc_safe_wal_bytes"}
    assert ours == NAMES - of_wal
    others = {name.partition("_")[0] for name in series(found.values()) if not name.startswith("cdc_")}
    assert others == {"process", "python"}


def test_prometheus_gets_openmetrics_and_everyone_else_plain_text() -> None:
    application = Application(specimen.metrics(), specimen.IDENTITY)
    kinds = [ask(application, "/metrics", accept=accept).headers["Content-Type"] for accept in (OPENMETRICS, "", "*/*")]
    assert kinds[0].startswith("application/openmetrics-text; version=1.0.0")
    assert kinds[1] == kinds[2]
    assert kinds[1].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("version", ["99.9", "2.0.0", "1.0.1", "1.0.0.1", "99.9;q=0.5"])
def test_case_h15_a_version_of_openmetrics_that_does_not_exist_is_answered_in_the_newest(version: str) -> None:
    application = Application(specimen.metrics(), specimen.IDENTITY)
    accept = f"application/openmetrics-text; version={version}, text/plain;version=0.0.4;q=0.3"
    kind = ask(application, "/metrics", accept=accept).headers["Content-Type"]
    assert kind.startswith("application/openmetrics-text; version=1.0.0;")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=99999999999999999999.0.0",
        "text/plain;version=1.0.0;escaping=\x7f;",
        "application/openmetrics-text;version=1.0.0;escaping=nonsense",
        ",;=;,version=,;;=;",
        "text/plain;version=" + "9" * 5000,
    ],
)
def test_an_odd_accept_header_is_answered_with_metrics(accept: str, caplog: pytest.LogCaptureFixture) -> None:
    reply = ask(Application(specimen.metrics(), specimen.IDENTITY), "/metrics", accept=accept)
    assert reply.status == 200
    assert "cdc_delivered_events_total 30000.0" in reply.text
    assert caplog.records == []


@pytest.mark.parametrize("accept", ["*/*", OPENMETRICS])
def test_values_are_those_of_the_publishers_metrics(accept: str) -> None:
    found = families(specimen.metrics(), accept)
    assert value(found, "cdc_events", "cdc_events_total", topic="outbox.event.order") == 30_000
    assert value(found, "cdc_bytes", "cdc_bytes_total", topic=specimen.HOSTILE) == 1_000
    assert value(found, "cdc_delivered_events", "cdc_delivered_events_total") == 30_000
    assert value(found, "cdc_transactions", "cdc_transactions_total") == 10_000
    assert value(found, "cdc_lag_bytes") == 2000
    assert value(found, "cdc_confirmed_lsn") == 5000
    assert value(found, "cdc_retained_wal_limit_bytes") == 10_485_760
    assert value(found, "cdc_in_flight_events") == 10
    assert value(found, "cdc_ready") == 1
    labels = {"version": "0.1.0", "accelerator": "python", "guarantee": "at-least-once", "slot": "cdc_publisher"}
    info = "cdc_build" if accept == OPENMETRICS else "cdc_build_info"
    assert value(found, info, "cdc_build_info", **labels) == 1


def test_a_relay_has_the_values_of_its_sentinel() -> None:
    found = families(specimen.polling())
    assert value(found, "cdc_polling_ticks", "cdc_polling_ticks_total") == 12
    assert (value(found, "cdc_polling_batch_rows"), value(found, "cdc_polling_batch_seconds")) == (25, 0.5)
    assert value(found, "cdc_polling_oldest_row_seconds") >= 1
    assert (value(found, "cdc_polling_strays"), value(found, "cdc_polling_numbers")) == (2, 90)
    assert value(found, "cdc_polling_batched_rows") == 70
    assert value(found, "cdc_lag_events") == 14


def test_exactly_one_state_is_1_and_every_state_is_there() -> None:
    states = {sample.labels["state"]: sample.value for sample in families(specimen.metrics())["cdc_state"].samples}
    assert states == {state.value: float(state == State.STREAMING) for state in State}


def test_buckets_are_cumulative_and_end_with_the_count() -> None:
    found = families(specimen.metrics(), OPENMETRICS)["cdc_delivery_seconds"]
    buckets = {s.labels["le"]: s.value for s in found.samples if s.name == "cdc_delivery_seconds_bucket"}
    assert (buckets["0.001"], buckets["0.0025"], buckets["0.005"], buckets["0.025"]) == (0, 1, 2, 3)
    assert buckets["+Inf"] == value({"x": found}, "x", "cdc_delivery_seconds_count") == 3
    assert value({"x": found}, "x", "cdc_delivery_seconds_sum") == pytest.approx(0.025)


def test_unknown_values_are_absent_and_not_zero() -> None:
    found = series(families(Metrics()).values())
    unknown = {"lag_bytes", "retained_wal_bytes", "retained_wal_limit_bytes", "safe_wal_bytes", "confirmed_lsn"}
    unknown |= {"confirmed_lsn_age_seconds", "last_dead_letter_timestamp_seconds", "last_error_timestamp_seconds"}
    unknown |= {"recovery_sent_events", "recovery_missing_events"}
    unknown |= {f"polling_{name}" for name in ("ticks_total", "batch_rows", "batch_seconds", "oldest_row_seconds")}
    unknown |= {"polling_strays", "polling_numbers", "polling_batched_rows"}
    labelled = {"events_total", "bytes_total", "other_messages_total"}  # there is no topic yet, and no prefix
    assert {f"cdc_{name}" for name in unknown | labelled} == NAMES - found


def test_every_name_has_a_help_text_and_its_unit_at_the_end() -> None:
    for name, family in families(specimen.metrics(), OPENMETRICS).items():
        if name.startswith("cdc_"):
            assert family.documentation.endswith("."), name
            unit = next((u for u in ("bytes", "seconds") if name.endswith(f"_{u}")), "")
            assert family.unit == unit, name


def test_metrics_are_read_while_the_loop_finds_new_topics() -> None:
    metrics = specimen.metrics()
    application = Application(metrics, specimen.IDENTITY)
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            metrics.events[f"topic-{number % 3000}"] += 1
            metrics.events.pop(f"topic-{(number + 1500) % 3000}", None)
            metrics.history.append(metrics.history[-1])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {ask(application, path).status for _ in range(10) for path in ("/metrics", "/status")} == {200}
    finally:
        done.set()
        writer.join()


def rows(metrics: Metrics | Routes) -> list[str]:
    """The table of docs/http.md: each metric with its labels, type and help text."""
    found = []
    for family in families(metrics, OPENMETRICS).values():
        if family.name.startswith("cdc_"):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = ", ".join(sorted({label for sample in family.samples for label in sample.labels} - {"le"}))
            name = f"{family.name}{suffix}{{{labels}}}" if labels else f"{family.name}{suffix}"
            kind = "gauge" if family.type == "info" else family.type
            found.append(f"| `{name}` | {kind} | {family.documentation} |")
    return found


def test_the_documentation_has_every_metric_as_it_is() -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    table = re.findall(r"^\| `cdc_.*$", page, re.MULTILINE)
    of_fleet = [row for row in rows(specimen.fleet()) if row.startswith("| `cdc_fleet_")]
    assert table == [*rows(specimen.metrics()), *of_fleet]

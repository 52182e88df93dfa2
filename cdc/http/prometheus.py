"""`/metrics`: the vitals under the names, units and types that Prometheus expects.

The names are a promise: dashboards and alert rules of others depend on them.
"""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector

from cdc.http.answers import Answer
from cdc.telemetry.health import State
from cdc.telemetry.metrics import Histogram, Vitals

Report = dict[str, Any]

# Name, what it counts, and where that is in a report.
_TOTALS: Final = (
    ("cdc_delivered_events_total", "Events that Kafka has confirmed.", "delivered"),
    ("cdc_transactions_total", "Transactions of PostgreSQL of which Kafka has confirmed every event.", "transactions"),
    ("cdc_poison_events_total", "Events that could not become records.", "poison"),
    ("cdc_dead_letters_total", "Events that were sent to the dead-letter topic instead.", "dead_letters"),
    ("cdc_skipped_replays_total", "Events that came again and were in their topic already.", "skipped_replays"),
    ("cdc_sent_again_total", "Events from before a session began that were not in their topic.", "sent_again"),
)
# Name, unit, what it measures, and where that is in a report.
_GAUGES: Final = (
    ("cdc_lag_bytes", "bytes", "WAL between the confirmed LSN and the end of the server's.", ("lag", "bytes")),
    ("cdc_lag_seconds", "seconds", "Age of the oldest commit that is not confirmed; 0: none.", ("lag", "seconds")),
    ("cdc_lag_events", "", "Events not confirmed; estimated for what is not read yet.", ("lag", "events")),
    ("cdc_retained_wal_bytes", "bytes", "WAL that PostgreSQL keeps for the slot.", ("slot", "retained_bytes")),
    (
        "cdc_retained_wal_limit_bytes",
        "bytes",
        "max_slot_wal_keep_size; absent when unlimited.",
        ("slot", "limit_bytes"),
    ),
    (
        "cdc_safe_wal_bytes",
        "bytes",
        "WAL that may be written before the slot is in danger; absent when unlimited.",
        ("slot", "safe_bytes"),
    ),
    (
        "cdc_in_flight_events",
        "",
        "Events handed to the producer that Kafka has not confirmed.",
        ("in_flight", "events"),
    ),
    (
        "cdc_in_flight_transactions",
        "",
        "Transactions of PostgreSQL that are read and not confirmed.",
        ("in_flight", "transactions"),
    ),
    (
        "cdc_confirmed_lsn_age_seconds",
        "seconds",
        "Time since the confirmed LSN last moved.",
        ("slot", "confirmed_age_seconds"),
    ),
)
_TOPICS: Final = (
    ("cdc_events_total", "", "Records handed to the producer.", "events"),
    ("cdc_bytes_total", "bytes", "Bytes of the values of records handed to the producer.", "bytes"),
)
_HISTOGRAMS: Final = (
    ("cdc_delivery_seconds", "From commit in PostgreSQL to confirmation by Kafka, of each transaction."),
    ("cdc_encode_seconds", "Time to make a record of a row: the mean of a burst, counted once for each of its rows."),
)
_OTHERS: Final = (
    "cdc_reconnects_total",
    "cdc_confirmed_lsn",
    "cdc_state",
    "cdc_ready",
    "cdc_last_error_timestamp_seconds",
    "cdc_start_time_seconds",
    "cdc_build_info",
)

NAMES: Final = frozenset(
    (
        *(name for name, *_ in (*_TOTALS, *_GAUGES, *_TOPICS)),
        *(f"{name}_{part}" for name, _ in _HISTOGRAMS for part in ("bucket", "sum", "count")),
        *_OTHERS,
    )
)
"""Of all series of ours."""


class Metrics:
    """A registry of its own: nothing here is global. `report` makes what `/status` shows."""

    def __init__(self, vitals: Vitals, report: Callable[[], Report]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Publisher(vitals, report))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def answer(self, accept: str) -> Answer:
        """In the format that the client asks for: OpenMetrics, or Prometheus' own text."""
        try:
            encode, content_type = choose_encoder(accept)
            body = encode(self._registry)
        except (TypeError, ValueError):  # of the library's parser, for a version that is none
            encode, content_type = choose_encoder("")
            body = generate_latest(self._registry)
        return Answer(HTTPStatus.OK, content_type, body)


class _Publisher(Collector):
    def __init__(self, vitals: Vitals, report: Callable[[], Report]) -> None:
        self._vitals = vitals
        self._report = report

    def describe(self) -> list[Metric]:
        """Nothing: the registry would collect at once, before anything has begun."""
        return []

    def collect(self) -> Iterator[Metric]:
        told = self._report()
        yield from _counted(told)
        yield from _measured(told)
        yield from _timed(self._vitals)
        yield from _state(told)
        yield from self._raw(told)

    def _raw(self, told: Report) -> Iterator[Metric]:
        """What a report has only as text."""
        vitals = self._vitals
        confirmed, trouble = vitals.confirmed, vitals.trouble
        yield CounterMetricFamily(
            "cdc_reconnects_total", "Sessions begun anew after an error.", value=vitals.reconnects
        )
        yield _gauge("cdc_confirmed_lsn", "", "The confirmed LSN, as a number of bytes.", confirmed)
        yield _gauge(
            "cdc_last_error_timestamp_seconds",
            "seconds",
            "When the last error happened; absent when there was none.",
            trouble.unix_time if trouble else None,
        )
        yield _gauge("cdc_start_time_seconds", "seconds", "When the publisher began.", vitals.started)
        publisher = told["publisher"]
        named = {"accelerator": publisher["accelerator"], "guarantee": publisher["guarantee"]}
        about = {"version": told["version"], **named, "slot": told["slot"]["name"]}
        yield InfoMetricFamily("cdc_build", "What runs here.", value=about)


def _gauge(name: str, unit: str, told: str, value: float | None) -> Metric:
    """Without a sample when the value is not known: 0 would be a lie."""
    family = GaugeMetricFamily(name, told, labels=(), unit=unit)
    if value is not None:
        family.add_metric((), value)
    return family


def _counted(told: Report) -> Iterator[Metric]:
    for name, unit, words, key in _TOPICS:
        family = CounterMetricFamily(name, words, labels=("topic",), unit=unit)
        for topic, counts in told["topics"].items():
            family.add_metric((topic,), counts[key])
        yield family
    for name, words, key in _TOTALS:
        yield CounterMetricFamily(name, words, value=told["totals"][key])


def _measured(told: Report) -> Iterator[Metric]:
    for name, unit, words, (section, key) in _GAUGES:
        yield _gauge(name, unit, words, told[section][key])


def _timed(vitals: Vitals) -> Iterator[Metric]:
    for (name, words), histogram in zip(_HISTOGRAMS, (vitals.delivery, vitals.encode), strict=True):
        yield HistogramMetricFamily(name, words, _buckets(histogram), histogram.sum, unit="seconds")


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus has them."""
    buckets, seen = [], 0
    bounds = [*(repr(float(bound)) for bound in histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, tuple(histogram.counts), strict=True):
        seen += count
        buckets.append((bound, float(seen)))
    return buckets


def _state(told: Report) -> Iterator[Metric]:
    family = GaugeMetricFamily("cdc_state", "1 for the state that the publisher is in.", labels=("state",))
    for state in State:
        family.add_metric((state.value,), state.value == told["state"])
    yield family
    yield _gauge("cdc_ready", "", "1: nobody needs to do anything; 0: a restart or a person must act.", told["ready"])

"""`/metrics`: the metrics under the names, units and types that Prometheus expects.

The names are a promise: dashboards and alert rules of others depend on them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Final

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
from cdc.status.document import PollingStatus, StatusDocument, Totals
from cdc.telemetry.health import State
from cdc.telemetry.metrics import Figures, Histogram

NAMES: Final = frozenset(
    [
        "cdc_events_total",
        "cdc_bytes_total",
        "cdc_delivered_events_total",
        "cdc_transactions_total",
        "cdc_poison_events_total",
        "cdc_dead_letters_total",
        "cdc_skipped_replays_total",
        "cdc_sent_again_total",
        "cdc_other_messages_total",
        "cdc_reconnects_total",
        "cdc_lag_bytes",
        "cdc_lag_seconds",
        "cdc_lag_events",
        "cdc_retained_wal_bytes",
        "cdc_retained_wal_limit_bytes",
        "cdc_safe_wal_bytes",
        "cdc_in_flight_events",
        "cdc_in_flight_transactions",
        "cdc_confirmed_lsn",
        "cdc_confirmed_lsn_age_seconds",
        "cdc_delivery_seconds_bucket",
        "cdc_delivery_seconds_sum",
        "cdc_delivery_seconds_count",
        "cdc_encode_seconds_bucket",
        "cdc_encode_seconds_sum",
        "cdc_encode_seconds_count",
        "cdc_state",
        "cdc_ready",
        "cdc_recovery_sent_events",
        "cdc_recovery_missing_events",
        "cdc_polling_ticks_total",
        "cdc_polling_batch_rows",
        "cdc_polling_batch_seconds",
        "cdc_polling_oldest_row_seconds",
        "cdc_polling_strays",
        "cdc_polling_numbers",
        "cdc_polling_batched_rows",
        "cdc_last_dead_letter_timestamp_seconds",
        "cdc_last_error_timestamp_seconds",
        "cdc_start_time_seconds",
        "cdc_build_info",
    ]
)
"""Names of all series, apart from those of the process and of Python."""

OF_FLEET: Final = frozenset(["cdc_fleet_units", "cdc_fleet_unit_assigned", "cdc_fleet_ready", "cdc_fleet_joined"])
"""Names of the series of an instance of a fleet, beside those of its units, which have the label `unit`."""


_UNKNOWN_VERSION: Final = re.compile(
    r"(application/openmetrics-text[^,]*?;\s*version\s*=\s*)(?!(?:0\.0\.1|1\.0\.0)\s*(?:[;,]|$))[^;,]+"
)
"""A version of OpenMetrics that does not exist: the library would claim to answer in it."""


class Exposition:
    """The endpoint `/metrics`, with a registry of its own: nothing here is global."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collected(collect))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def answer(self, accept: str) -> Answer:
        """Answer in the format that the client asks for: OpenMetrics, or Prometheus' text format."""
        try:
            encode, content_type = choose_encoder(_UNKNOWN_VERSION.sub(r"\g<1>1.0.0", accept))
            body = encode(self._registry)
        except (TypeError, ValueError):  # raised by the library's parser for an invalid version
            encode, content_type = choose_encoder("")
            body = generate_latest(self._registry)
        return Answer(HTTPStatus.OK, content_type, body)


class _Collected(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> list[Metric]:
        """Nothing: the registry would otherwise collect at once, before anything has begun."""
        return []

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def families(document: StatusDocument, figures: Figures) -> Iterator[Metric]:
    """Yield the metrics of one publisher."""
    yield from _topics(document)
    yield from _totals(document.totals)
    yield _other_messages(document)
    yield from _gauges(document)
    yield from _histograms(figures)
    yield from _state(document)
    yield from _recovery(document)
    yield from _polling(document.polling or PollingStatus())
    yield from _raw(figures)
    yield _build(document)


def labelled(publishers: Mapping[str, Iterable[Metric]]) -> Iterator[Metric]:
    """Yield the metrics of several publishers, by unit: each family once, with the label `unit`."""
    merged: dict[str, Metric] = {}
    for unit, metrics in publishers.items():
        for metric in metrics:
            family = merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type, metric.unit))
            family.samples += [sample._replace(labels={"unit": unit, **sample.labels}) for sample in metric.samples]
    yield from merged.values()


def fleet_families(
    states: Mapping[str, int], assigned: Mapping[str, bool], *, ready: bool, joined: bool
) -> Iterator[Metric]:
    """Yield the metrics of an instance of a fleet: how many units it knows by state, and which it has."""
    family = GaugeMetricFamily(
        "cdc_fleet_units", "Units of the fleet that the instance knows, by state.", labels=("state",)
    )
    for state, count in states.items():
        family.add_metric((state,), count)
    yield family
    family = GaugeMetricFamily(
        "cdc_fleet_unit_assigned", "1 if the registered unit is to run in this instance, else 0.", labels=("unit",)
    )
    for unit, here in assigned.items():
        family.add_metric((unit,), here)
    yield family
    yield _gauge("cdc_fleet_ready", "", "1 if the instance is ready; 0 if a rollout should stop at it.", ready)
    yield _gauge("cdc_fleet_joined", "", "1 while the instance is in the group; 0 while Kafka is away.", joined)


def _raw(figures: Figures) -> Iterator[Metric]:
    """Metrics of which the document has a text, or no number at all."""
    yield _counter("cdc_reconnects_total", "Sessions started again after an error.", figures.reconnects)
    yield _gauge("cdc_confirmed_lsn", "", "Confirmed LSN, as a number of bytes.", figures.confirmed)
    yield _gauge(
        "cdc_last_dead_letter_timestamp_seconds",
        "seconds",
        "Time of the last event sent to the dead-letter topic; absent if there was none.",
        figures.last_dead_letter,
    )
    yield _gauge(
        "cdc_last_error_timestamp_seconds",
        "seconds",
        "Time of the last error; absent if there was none.",
        figures.last_error,
    )
    yield _gauge("cdc_start_time_seconds", "seconds", "Time at which the publisher started.", figures.started)


def _gauge(name: str, unit: str, text: str, value: float | None) -> Metric:
    """Make a gauge, without a sample when the value is unknown: 0 would be wrong."""
    family = GaugeMetricFamily(name, text, labels=(), unit=unit)
    if value is not None:
        family.add_metric((), value)
    return family


def _counter(name: str, text: str, value: float | None) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _topics(document: StatusDocument) -> Iterator[Metric]:
    events = CounterMetricFamily("cdc_events_total", "Records handed to the producer.", labels=("topic",))
    size = CounterMetricFamily(
        "cdc_bytes_total", "Bytes of the values of records handed to the producer.", labels=("topic",), unit="bytes"
    )
    for name, topic in document.topics.items():
        events.add_metric((name,), topic.events or 0)
        size.add_metric((name,), topic.bytes or 0)
    yield from (events, size)


def _totals(totals: Totals) -> Iterator[Metric]:
    yield _counter("cdc_delivered_events_total", "Events that Kafka has confirmed.", totals.delivered)
    yield _counter(
        "cdc_transactions_total",
        "PostgreSQL transactions of which Kafka has confirmed every event.",
        totals.transactions,
    )
    yield _counter("cdc_poison_events_total", "Events that could not be encoded as records.", totals.poison)
    yield _counter("cdc_dead_letters_total", "Events sent to the dead-letter topic.", totals.dead_letters)
    yield _counter(
        "cdc_skipped_replays_total",
        "Redelivered events that were skipped because their topic already had them.",
        totals.skipped_replays,
    )
    yield _counter(
        "cdc_sent_again_total",
        "Redelivered events that were sent because their topic did not have them.",
        totals.sent_again,
    )


def _other_messages(document: StatusDocument) -> Metric:
    family = CounterMetricFamily(
        "cdc_other_messages_total",
        "Logical messages that are no events, by prefix; only with [outbox] messages.",
        labels=("prefix",),
    )
    for prefix, count in document.other_messages.items():
        family.add_metric((prefix,), count)
    return family


def _gauges(document: StatusDocument) -> Iterator[Metric]:
    lag, slot, in_flight = document.lag, document.slot, document.in_flight
    yield _gauge("cdc_lag_bytes", "bytes", "WAL between the confirmed LSN and the end of the server's WAL.", lag.bytes)
    yield _gauge("cdc_lag_seconds", "seconds", "Age of the oldest unconfirmed commit; 0 if there is none.", lag.seconds)
    yield _gauge("cdc_lag_events", "", "Unconfirmed events; those not yet read are estimated.", lag.events)
    yield _gauge("cdc_retained_wal_bytes", "bytes", "WAL that PostgreSQL retains for the slot.", slot.retained_bytes)
    yield _gauge(
        "cdc_retained_wal_limit_bytes", "bytes", "max_slot_wal_keep_size; absent without a limit.", slot.limit_bytes
    )
    yield _gauge(
        "cdc_safe_wal_bytes",
        "bytes",
        "WAL that can be written before the slot may be lost; absent without a limit.",
        slot.safe_bytes,
    )
    yield _gauge(
        "cdc_in_flight_events", "", "Events handed to the producer that Kafka has not confirmed.", in_flight.events
    )
    yield _gauge(
        "cdc_in_flight_transactions",
        "",
        "PostgreSQL transactions that were read and are not confirmed.",
        in_flight.transactions,
    )
    yield _gauge(
        "cdc_confirmed_lsn_age_seconds",
        "seconds",
        "Time since the confirmed LSN last moved.",
        slot.confirmed_age_seconds,
    )


def _histograms(figures: Figures) -> Iterator[Metric]:
    for name, text, histogram in (
        (
            "cdc_delivery_seconds",
            "Time from a transaction's commit in PostgreSQL to its confirmation by Kafka.",
            figures.delivery,
        ),
        (
            "cdc_encode_seconds",
            "Time to encode a row as a record: the mean of a burst, observed once per row.",
            figures.encode,
        ),
    ):
        yield HistogramMetricFamily(name, text, _buckets(histogram), histogram.sum, unit="seconds")


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound."""
    buckets, seen = [], 0
    bounds = [*(repr(float(bound)) for bound in histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, tuple(histogram.counts), strict=True):
        seen += count
        buckets.append((bound, float(seen)))
    return buckets


def _state(document: StatusDocument) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "cdc_state", "1 for the current state of the publisher, 0 for all others.", labels=("state",)
    )
    for state in State:
        family.add_metric((state.value,), state == document.state)
    yield family
    yield _gauge(
        "cdc_ready", "", "1 if the publisher is ready; 0 if it needs a restart or an operator.", document.ready
    )


def _recovery(document: StatusDocument) -> Iterator[Metric]:
    recovery = document.recovery
    yield _gauge(
        "cdc_recovery_sent_events",
        "",
        "Events that the recovery by this process has sent; absent before there was one.",
        recovery.sent if recovery else None,
    )
    yield _gauge(
        "cdc_recovery_missing_events",
        "",
        "Events that the recovery by this process sends in all; absent until they are counted.",
        recovery.missing if recovery else None,
    )


def _polling(polling: PollingStatus) -> Iterator[Metric]:
    """Metrics of a relay that queries the table; without samples with a slot."""
    ticks = CounterMetricFamily(
        "cdc_polling_ticks_total", "Snapshots taken by this process, one for each batch.", labels=()
    )
    if polling.ticks is not None:
        ticks.add_metric((), polling.ticks)
    yield ticks
    yield _gauge("cdc_polling_batch_rows", "", "Rows of the last batch.", polling.batch_rows)
    yield _gauge(
        "cdc_polling_batch_seconds", "seconds", "Time between the snapshots of the last batch.", polling.batch_seconds
    )
    yield _gauge(
        "cdc_polling_oldest_row_seconds",
        "seconds",
        "Age of the oldest row that is in no batch; 0 if there is none.",
        polling.oldest_row_seconds,
    )
    yield _gauge(
        "cdc_polling_strays",
        "",
        "Rows that will be in no batch: they were written without the trigger.",
        polling.strays,
    )
    yield _gauge(
        "cdc_polling_numbers",
        "",
        "Numbers that the sequence of the outbox has given out, also to rows that were rolled back.",
        polling.numbers,
    )
    yield _gauge("cdc_polling_batched_rows", "", "Rows that were in confirmed batches.", polling.batched_rows)


def _build(document: StatusDocument) -> Metric:
    publisher = document.publisher
    assert publisher
    value = {
        "version": document.version,
        "accelerator": publisher.accelerator or "",
        "guarantee": publisher.guarantee or "",
        "slot": document.slot.name,
    }
    return InfoMetricFamily("cdc_build", "Version and settings of the running publisher.", value=value)

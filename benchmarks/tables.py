"""Format results as Markdown tables."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import goals
from benchmarks.results import Change

Results = Mapping[str, Any]

_MEASURES = (
    ("rate", "events/s, 5 to 100 %", "{:,.0f}"),
    ("whole_rate", "events/s, whole run", "{:,.0f}"),
    ("cpu_us", "CPU us/event", "{:.2f}"),
    ("peak_mb", "peak MB", "{:.0f}"),
    ("walsender_us", "walsender us/event", "{:.2f}"),
    ("broker_us", "broker us/event", "{:.2f}"),
)


_OF_A_BACKFILL = {"seconds": "{:.0f}", "rate": "{:,.0f}", "peak_mb": "{:.0f}", "growth_mb": "{:+.1f}"}
_OF_IDLE_UNITS = {
    "all_mb": "{:.0f}",
    "further_mb": "{:.1f}",
    "instance_mb": "{:.1f}",
    "cpu_share": "{:.1f} % of a core",
}
_OF_POLLING = (
    ("rate", "events/s", "{:,.0f}"),
    ("cpu_us", "CPU us/event", "{:.2f}"),
    ("postgres_us", "PostgreSQL us/event", "{:.2f}"),
    ("written_us", "writing us/event", "{:.2f}"),
    ("dead", "dead rows", "{:,.0f}"),
    ("vacuum_us", "vacuum us/event", "{:.2f}"),
)
_OF_A_RUN = {"date": "{}", "revision": "at {}", "load before": "load before {}"}


def markdown(results: Results) -> str:
    """Return all sections, each under its heading."""
    parts = ["# Results", _machine(results), _goals(results)]
    parts += [_peers(results["peers"])] if "peers" in results else []
    parts += [_throughput(name, part) for name, part in results.items() if name.startswith("throughput ")]
    parts += [_latency(results["latency"])] if "latency" in results else []
    parts += [_startup(results["startup"])] if "startup" in results else []
    parts += [_memory(results)] if any(name.startswith("memory ") for name in results) else []
    parts += [_backfill(results["backfill"])] if "backfill" in results else []
    parts += [_split(results["split"])] if "split" in results else []
    parts += [_fleet(results["fleet"])] if "fleet" in results else []
    parts += [_polling(results["polling"])] if "polling" in results else []
    parts += [_growth(results["growth"])] if "growth" in results else []
    return "\n\n".join(filter(None, parts)) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with the first column aligned left and numbers right."""
    marks = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, marks, *rows])


def shown(value: Any, form: str) -> str:
    """Format a number, or a dash if it was not measured."""
    return form.format(value) if isinstance(value, int | float) and math.isfinite(value) else "-"


def spread(value: Mapping[str, Any] | None, form: str) -> str:
    """Format the median, with the range of the runs in brackets."""
    if not value:
        return "-"
    median, lowest, highest = (shown(value[name], form) for name in ("median", "lowest", "highest"))
    return median if lowest == highest else f"{median} ({lowest} to {highest})"


def _machine(results: Results) -> str:
    """List each machine once, with its measurements, their times and revisions."""
    machines: dict[tuple[tuple[str, str], ...], list[list[str]]] = {}
    for name, part in results.items():
        same = tuple(item for item in part["machine"].items() if item[0] not in _OF_A_RUN)
        told = ", ".join(form.format(part["machine"].get(key, "unknown")) for key, form in _OF_A_RUN.items())
        machines.setdefault(same, []).append([name, told])
    return "\n\n".join(table(["", ""], [*map(list, machine), *runs]) for machine, runs in machines.items())


def _goals(results: Results) -> str:
    found = goals.outcomes(results)
    rows = [[one.goal.name, one.limit, f"{one.value:.2f}", "met" if one.met else "**missed**"] for one in found]
    if not found:
        return ""
    few = goals.short(results)
    note = (
        f"\n\nMeant for {goals.MEANT_EVENTS:,} events; with {few:,}, what the start costs weighs on each."
        if few
        else ""
    )
    return "## Goals\n\n" + table(["goal", "limit", "measured", ""], rows) + note


def _throughput(name: str, part: Results) -> str:
    header = ["", *(title for _, title, _ in _MEASURES)]
    rows = [
        [contestant, *(spread(values.get(measure), form) for measure, _, form in _MEASURES)]
        for contestant, values in part["contestants"].items()
    ]
    given = part["workload"]
    rows_of = f"{given['rows']} a transaction" if given["rows"] else "all in one transaction"
    about = (
        f"{given['events']:,} events of {part['payload_bytes']:.0f} bytes, {rows_of}, {given['keys']:,} keys,"
        f" {given['partitions']} partitions. The ceiling waits {part['ceiling_wait_us']} us between reads."
    )
    ratios = [[pair, spread(value, "{:.2f}")] for pair, value in part["ratios"].items()]
    pairs = "\n\n" + table(["ratio, paired in each round", "median"], ratios) if ratios else ""
    doubts = "".join(f"\n\n**Doubtful:** {doubt}." for doubt in part.get("doubts", []))
    return f"## Throughput, {name.removeprefix('throughput ')}\n\n{about}\n\n{table(header, rows)}{pairs}{doubts}"


def _peers(part: Results) -> str:
    given = part["workload"]
    about = (
        f"{given['events']:,} events, {given['rows']} a transaction, {part['rounds']} alternations, medians; latency"
        " from the commit to the append, and kills at 1,000 events/s and within 200,000 events, once each."
    )
    header = ["", "sends", "events/s", "of the ceiling", "CPU us/event", "peak MB", "first record after s"]
    header += ["p50 / p99 ms", "duplicates, backlog / steady", "lost, backlog / steady"]
    rows = [_peer(name, found) for name, found in part["peers"].items() if "rate" in found]
    left_out = "".join(f"\n\n**Failed:** {name}, {reason}." for name, reason in part["failures"].items())
    return f"## Peers\n\n{about}\n\n{table(header, rows)}{left_out}"


def _peer(name: str, found: Results) -> list[str]:
    median: Callable[[str, str], str] = lambda of, form: shown(found.get(of, {}).get("median"), form)  # noqa: E731
    times = found.get("latency", {}).get("ms", {})
    kills = [found.get(kind, {}) for kind in ("killed_in_backlog", "killed_at_rate")]
    return [
        name,
        found["sends"],
        median("rate", "{:,.0f}"),
        median("ratio", "{:.2f}"),
        median("cpu_us", "{:.1f}"),
        median("peak_mb", "{:,.0f}"),
        median("first_seconds", "{:.2f}"),
        " / ".join(shown(times.get(each), "{:.1f}") for each in ("p50", "p99")),
        *(" / ".join(shown(kill.get(each), "{:,}") for kill in kills) for each in ("duplicates", "lost")),
    ]


def _latency(part: Results) -> str:
    rows = []
    for rate, result in part["rates"].items():
        for since, times in ((result["from"], result["ms"]), ("the return of COMMIT", result["ms_after_return"])):
            if times is result["ms"] or since != result["from"]:
                figures = [shown(times[name], "{:.1f}") for name in ("p50", "p95", "p99", "max")]
                cpu = [shown(result["cpu_us"], "{:.1f}"), shown(result["cpu_share"] * 100, "{:.0f} %")]
                rows.append([f"{int(rate):,}", f"{result['reached']:,.0f}", since, *figures, *cpu])
    header = ["events/s", "reached", "from", "p50 ms", "p95 ms", "p99 ms", "max ms", "CPU us/event", "of a core"]
    return f"## Latency\n\nPublisher: {part['contestant']}.\n\n{table(header, rows)}"


def _startup(part: Results) -> str:
    rows = [
        [kind, *(spread(part[kind][name], "{:.2f}") for name in ("streaming", "first_event"))]
        for kind in ("warm", "cold")
    ]
    return f"## Start\n\n{table(['', 'streaming after s', 'first event after s'], rows)}"


def _memory(results: Results) -> str:
    parts = {name.removeprefix("memory "): part for name, part in results.items() if name.startswith("memory ")}
    rows = [
        [name, f"{part['workload']['events']:,}", shown(part["peak_mb"], "{:.0f}"), shown(part["growth_mb"], "{:+.1f}")]
        for name, part in parts.items()
    ]
    return f"## Memory\n\n{table(['', 'events', 'peak MB', 'last quarter over second, MB'], rows)}"


def _backfill(part: Results) -> str:
    row = [
        f"{part['workload']['events']:,}",
        f"{part['written_meanwhile']:,}",
        *(shown(part[name], form) for name, form in _OF_A_BACKFILL.items()),
    ]
    header = ["rows", "written meanwhile", "s", "events/s", "peak MB", "last quarter over second, MB"]
    return f"## Backfill\n\n{table(header, [row])}"


def _split(part: Results) -> str:
    measures = [one for one in _MEASURES if one[0] != "peak_mb"]
    rows = [
        [number, name, *(spread(values.get(one), form) for one, _, form in measures)]
        for number, found in part["parts"].items()
        for name, values in found.items()
    ]
    about = (
        f"{part['workload']['events']:,} events, the same for each number of parts; one part is a table that is not"
        " split. CPU is that of all publishers and all walsenders, the publishers' without that of their start."
    )
    return f"## Split\n\n{about}\n\n{table(['parts', 'publishers', *(title for _, title, _ in measures)], rows)}"


def _fleet(part: Results) -> str:
    idle = [
        [way, *(shown(found[one] * (100 if one == "cpu_share" else 1), form) for one, form in _OF_IDLE_UNITS.items())]
        for way, found in part["idle"].items()
    ]
    measures = [one for one in _MEASURES if one[0] != "peak_mb"]
    runs = [
        [way, *(spread(found.get(one), form) for one, _, form in measures)] for way, found in part["one unit"].items()
    ]
    taken = [[what, spread(seconds, "{:.1f}")] for what, seconds in part["takeovers"].items()]
    over = table([f"takeovers of {part['units']} units, exactly-once", "s until all are read"], taken)
    heads = [f"{part['units']} idle units", "MB of all", "MB per further unit", "MB besides", "CPU"]
    return (
        f"## Fleet\n\nPublisher: {part['contestant']}. Memory counts pages that processes share once (PSS);"
        " CPU per event is that of all processes, with their start.\n\n"
        f"{table(heads, idle)}\n\n{over}\n\n"
        f"{table(['one unit, whole fleet', *(title for _, title, _ in measures)], runs)}\n\n"
        f"Events/s in the fleet over a single publisher's, paired in each round: {spread(part['ratio'], '{:.3f}')}."
    )


def _polling(part: Results) -> str:
    given = part["workload"]
    about = (
        f"{given['events']:,} events, {given['rows']} a transaction, {part['rounds']} alternations; then"
        f" {part['asked']:,} events/s, also while another transaction stays open. The CPU time of PostgreSQL is that of"
        " all its processes, at the steady rate including the writers."
    )
    drained = [
        [name, *(spread(found.get(each), form) for each, _, form in _OF_POLLING)]
        for name, found in part["backlog"].items()
    ]
    steady = [
        [
            name,
            f"{found['seconds']:.0f}",
            *(shown(found.get("ms", {}).get(each), "{:.1f}") for each in ("p50", "p99")),
            *(shown(found.get(each), "{:.1f}") for each in ("cpu_us", "postgres_us")),
            *(shown(found.get(each), "{:,}") for each in ("dead", "kept")),
        ]
        for name, found in part["steady"].items()
    ]
    header = [
        "steady rate",
        "s",
        "p50 ms",
        "p99 ms",
        "CPU us/event",
        "PostgreSQL us/event",
        "dead rows",
        "after a vacuum",
    ]
    first = table(["backlog", *(title for _, title, _ in _OF_POLLING)], drained)
    return f"## Polling\n\n{about}\n\n{first}\n\n{table(header, steady)}"


def _growth(part: Results) -> str:
    tables = [_dimension(name, found) for name, found in part["dimensions"].items()]
    return "## Cost as work grows\n\n" + "\n\n".join(tables)


def _dimension(name: str, found: Results) -> str:
    steps = {str(step["to"]): step for step in found["steps"]}
    rows = [
        [
            f"{int(value):,}",
            shown(cell["cpu_us"], "{:.2f}"),
            shown(cell["rate"], "{:,.0f}"),
            shown(cell.get("start_cpu_seconds"), "{:.2f}"),
            shown(cell.get("peak_mb"), "{:.0f}"),
            *(shown(steps.get(value, {}).get(kind), "{:+.2f}") for kind in ("cpu", "time")),
        ]
        for value, cell in found["cells"].items()
    ]
    named = [f"{int(step['from']):,} to {int(step['to']):,} in {step['in']}" for step in found["faster_than_linear"]]
    verdict = f"\n\n**Faster than linearly:** {', '.join(named)}." if named else ""
    header = [name, "CPU us/event", "events/s", "start, CPU s", "peak MB", "exponent, CPU", "exponent, time"]
    return table(header, rows) + verdict


def changes(found: Sequence[Change]) -> str:
    """Return a table of each figure's previous and current value."""
    rows = [[one.name, f"{one.before:,.2f}", f"{one.now:,.2f}", shown(one.percent, "{:+.1f} %")] for one in found]
    return table(["figure", "before", "now", "change"], rows)

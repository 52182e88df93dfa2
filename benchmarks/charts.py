"""Draw the results as PNG charts with matplotlib (extra `bench`); without it there are tables only."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

Results = Mapping[str, Any]

WITHOUT: Final = "no charts: matplotlib is not installed (pip install 'cdc-publisher[bench]')"
_COLOURS: Final = {
    "ceiling": "#9aa0a6",
    "recvlogical": "#c5c8cc",
    "python": "#3b6fb6",
    "native": "#1a9850",
    "exactly-once": "#d98c21",
}


def available() -> bool:
    return find_spec("matplotlib") is not None


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw every chart for which there are results. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    drawn = {
        "peers.png": results.get("peers"),
        "throughput.png": {name: part for name, part in results.items() if name.startswith("throughput ")},
        "latency.png": results.get("latency", {}).get("rates"),
        "memory.png": {name: part for name, part in results.items() if name.startswith("memory ")},
        "growth.png": results.get("growth", {}).get("dimensions"),
    }
    makers = {
        "peers.png": _peers,
        "throughput.png": _throughput,
        "latency.png": _latency,
        "memory.png": _memory,
        "growth.png": _growth,
    }
    return [_saved(makers[name](part), folder / name) for name, part in drawn.items() if part]


def _saved(figure: Any, file: Path) -> Path:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file


def _panels(count: int, height: float = 3.2) -> tuple[Any, list[Any]]:
    import matplotlib.pyplot as plt

    columns = min(count, 3)
    lines = -(-count // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, height * lines), squeeze=False)
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.set_visible(False)
    for one in flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure, flat[:count]


def _peers(part: Results) -> Any:
    """Draw one panel per measure with a bar per program; the longest bar is not always the best."""
    shown = {name: found for name, found in part["peers"].items() if "rate" in found}
    measures = {"events/s": "rate", "CPU, us/event": "cpu_us", "peak MB": "peak_mb"}
    figure, panels = _panels(len(measures), 2.6)
    for axes, (title, measure) in zip(panels, measures.items(), strict=True):
        values = [found.get(measure, {}).get("median", 0.0) for found in shown.values()]
        axes.barh(list(shown), values, color=[_COLOURS.get(name, "#9aa0a6") for name in shown])
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}")
    return figure


def _throughput(parts: Results) -> Any:
    """Draw one panel per shape: events/s of each contestant, with the range of its runs."""
    figure, panels = _panels(len(parts))
    for axes, (name, part) in zip(panels, parts.items(), strict=True):
        found = part["contestants"].items()
        bars = {who: values.get("rate") or values["whole_rate"] for who, values in found}
        names = [who if "rate" in values else f"{who}, whole run" for who, values in found]
        medians = [value["median"] for value in bars.values()]
        ranges = [
            [v["median"] - v["lowest"] for v in bars.values()],
            [v["highest"] - v["median"] for v in bars.values()],
        ]
        axes.barh(names, medians, xerr=ranges, color=[_COLOURS[who] for who in bars], error_kw={"lw": 1})
        axes.invert_yaxis()
        axes.set_title(name.removeprefix("throughput "), fontsize=10)
        axes.set_xlabel("events/s")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    return figure


def _latency(rates: Results) -> Any:
    """Draw percentiles by rate, on a logarithmic scale, which includes the maximum."""
    figure, (axes,) = _panels(1, 3.6)
    names = ("p50", "p95", "p99", "max")
    for shift, (rate, result) in enumerate(rates.items()):
        places = [place + shift * 0.25 for place in range(len(names))]
        axes.bar(places, [max(0.1, result["ms"][name]) for name in names], width=0.23, label=f"{int(rate):,}/s")
    axes.set_xticks([place + 0.25 for place in range(len(names))], names)
    axes.set_yscale("log")
    axes.set_ylim(bottom=1)  # the length of a bar says nothing on this scale; its end does
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", which="both", lw=0.3)
    axes.set_ylabel("ms from commit to append")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _memory(parts: Results) -> Any:
    """Draw resident memory over time, on a scale from zero."""
    figure, panels = _panels(len(parts))
    for axes, (name, part) in zip(panels, parts.items(), strict=True):
        axes.plot([at for at, _ in part["samples"]], [size for _, size in part["samples"]])
        axes.set_ylim(0, max(110, part["peak_mb"] * 1.1))
        axes.axhline(100, color="#999", lw=0.8, ls="--")
        axes.set_title(f"{name.removeprefix('memory ')}, {part['workload']['events']:,} events", fontsize=10)
        axes.set_xlabel("s")
        axes.set_ylabel("resident MB")
    return figure


def _growth(dimensions: Results) -> Any:
    """Draw one panel per dimension, both scales logarithmic: a slope of 1 is linear growth."""
    figure, panels = _panels(len(dimensions))
    for axes, (name, found) in zip(panels, dimensions.items(), strict=True):
        values = [int(value) for value in found["cells"]]
        cells = found["cells"].values()
        axes.loglog(values, [cell["cpu_us"] for cell in cells], marker="o", label="CPU of the publisher")
        axes.loglog(values, [1e6 / cell["rate"] for cell in cells], marker=".", color="#bbb", label="time")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 1), max(high, 100))
        axes.set_title(name, fontsize=10)
        axes.set_ylabel("us/event")
    panels[0].legend(frameon=False, fontsize=8)
    return figure

"""Write results into a page, such as docs/speed.md: charts and tables between two marks; and beside it as JSON."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import tables
from benchmarks.results import Sections

BEGIN: Final = "<!-- results -->"
END: Final = "<!-- end of results -->"
TITLES: Final = {
    "peers.png": "events/s, CPU and memory beside other programs",
    "throughput.png": "events/s by contestant",
    "latency.png": "latency by rate",
    "memory.png": "resident memory over time",
    "growth.png": "cost of an event as work grows",
}


def replaced(page: str, results: Sections, charts: Sequence[str]) -> str:
    """Return the page with charts and tables of `results` between its marks. Raises ValueError without marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no marks {BEGIN} and {END}")
    # The page has its own title, and these headings come below one of its own.
    shown = tables.markdown(results).removeprefix("# Results\n\n").replace("\n## ", "\n### ").strip()
    images = [f"![{TITLES.get(name, name)}](images/{name})" for name in charts]
    return "\n\n".join([before + BEGIN, *images, shown, END + after])


def write(page: Path, results: Sections, charts: Path | None) -> list[Path]:
    """Rewrite the page, its figures as JSON beside it and the charts in `images`, and return the written paths."""
    drawn = sorted(charts.glob("*.png") if charts else [], key=lambda chart: [*TITLES, chart.name].index(chart.name))
    page.write_text(replaced(page.read_text(), results, [chart.name for chart in drawn]))
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    figures = page.with_suffix(".json")
    figures.write_text(json.dumps(results, indent=1) + "\n")
    return [page, figures, *(Path(shutil.copy(chart, images)) for chart in drawn)]

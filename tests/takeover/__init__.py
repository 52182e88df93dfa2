"""Configurations of connectors as users have them, and the plans that `takeover plan` makes of them.

`python -m tests.takeover` writes the plans again.
"""

from collections.abc import Iterator
from pathlib import Path

from cdc.takeover import plan
from cdc.takeover.documents import parse, parse_worker
from cdc.takeover.translate import translate
from cdc.takeover.verdicts import Translation

FOLDER = Path(__file__).parent
CONNECTORS = sorted((FOLDER / "connectors").iterdir())
WORKERS = {
    "minimal.json": "worker.properties",
    "exactly-once.json": "worker.properties",
    "strimzi.yaml": "connect.yaml",
}
SECRETS = ("dbz-secret", "kafka-secret", "reg-secret", "key-secret")


def translated(file: Path, *, complete: bool = True) -> Translation:
    """Return the translation of a connector, by default for a version that has every setting."""
    configuration = parse(file.read_text(), file.name)
    if worker := WORKERS.get(file.name):
        configuration = configuration.with_worker(parse_worker((FOLDER / worker).read_text(), worker))
    return translate(configuration, lambda *_: True) if complete else translate(configuration)


def plans() -> Iterator[tuple[Path, str]]:
    """Yield the file and the text of each plan."""
    for file in CONNECTORS:
        yield FOLDER / "plans" / f"{file.name}.toml", plan.text(translated(file))

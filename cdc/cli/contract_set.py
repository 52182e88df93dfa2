"""Contracts selected for a `schema` command, with their registry and the outbox table."""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from cdc.avro import contracts
from cdc.avro.byte_texts import ADVICE
from cdc.avro.contracts import Contract, Contracts
from cdc.avro.subjects import subject
from cdc.checks.contracts import doubts, examine, misfit
from cdc.config.settings import Settings, require
from cdc.errors import ConfigError
from cdc.postgres import rows
from cdc.postgres.connection import LONG_SECONDS, connect
from cdc.postgres.renamed import located
from cdc.registry.opening import opened

if TYPE_CHECKING:
    from cdc.registry.client import Reference, Registered, Registry

SHOWN: Final = 100  # rows that do not fit and are reported one by one; the others are counted


class ContractSet:
    """The contracts of the settings, all or those of `types`, and checks of them against registry and outbox table."""

    def __init__(self, settings: Settings, topics: tuple[str, ...], types: tuple[str, ...] = ()) -> None:
        self._settings = settings
        avro = settings.avro
        self._loaded = contracts.load(avro.schemas, avro.types, avro.rules)
        self.definitions = self._loaded.definitions
        self.contracts = _chosen(self._loaded, types)
        self._given = topics
        self._in_table: list[tuple[str, str]] | None = None

    @functools.cached_property
    def registry(self) -> "Registry | None":
        """The registry of the settings, if any. Raises ConfigError if it cannot be used."""
        return opened(self._settings.schema_registry) if self._settings.schema_registry.url else None

    def subjects(self, contract: Contract) -> list[str]:
        """Return the subjects of a contract; empty if its topics are not known."""
        strategy = self._settings.avro.subject
        if strategy == "record-name":
            return [contract.name]
        return list(dict.fromkeys(subject(strategy, topic, contract.name) for topic in self._topics(contract)))

    def _topics(self, contract: Contract) -> list[str]:
        if fixed := self._settings.template.fixed:
            return [fixed]
        if self._given:
            return list(self._given)
        if self._in_table is None:
            self._in_table = self._topics_of_table()
        return [topic for topic, event_type in self._in_table if self._loaded.get(event_type) is contract]

    def _topics_of_table(self) -> list[tuple[str, str]]:
        if not self._settings.postgres.dsn:
            return []
        with connect(self._settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection:
            return rows.topics(connection, located(connection, self._settings))

    def lookup(self, contract: Contract, name: str) -> "Registered | None":
        """Return the registered schema of a contract; None if it is not registered, or without a registry."""
        if self.registry is None:
            return None
        needed = self._references(contract)
        return None if needed is None else self.registry.lookup(name, contract.text, needed)

    def register(self, contract: Contract, name: str) -> "Registered":
        """Register a contract after the schemas that it references."""
        assert self.registry
        needed = self._references(contract, register=True)
        return self.registry.register(name, contract.text, needed or ())

    def _references(self, contract: Contract, *, register: bool = False) -> "list[Reference] | None":
        from cdc.registry.references import references  # needs an extra that only a registry requires

        assert self.registry
        return references(self.registry, self.definitions, contract.name, register=register)

    def registry_problems(self, checked: dict[str, int]) -> Iterator[dict[str, Any]]:
        """Yield one problem for each reason why the registry would refuse a contract; counts in `checked`."""
        assert self.registry
        checked["subjects"] = 0
        without_topic = sum(not self.subjects(contract) for contract in self.contracts)
        if without_topic:
            checked["contracts of no known topic"] = without_topic
        for contract in self.contracts:
            for name in self.subjects(contract):
                checked["subjects"] += 1
                # As one schema with its references inlined, because these may not be registered yet.
                for problem in self.registry.problems(name, self.definitions[contract.name].whole):
                    yield {"check": "registry", "type": contract.name, "subject": name, "problem": problem}

    def row_problems(self, checked: dict[str, int]) -> Iterator[dict[str, Any]]:
        """Yield one problem for each row of the outbox table that would be a poison event; counts in `checked`."""
        checked["rows"] = unfit = 0
        settings = require(self._settings, kafka=False)
        with connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection:
            for row in rows.read(connection, located(connection, self._settings)):
                checked["rows"] += 1
                if problem := misfit(self._settings, self._loaded.get, self._loaded.missing, row):
                    unfit += 1
                    if unfit <= SHOWN:
                        yield {"check": "table", "id": row.id, "type": row.type, "problem": problem}
                else:
                    examine(settings, self._loaded.get, row)
        if unfit > SHOWN:
            yield {"check": "table", "problem": f"{unfit - SHOWN} more rows do not fit"}

    def doubts(self) -> list[dict[str, Any]]:
        """Return a warning for each contract with bytes that look encoded in the rows that `row_problems` has read."""
        return [
            {"check": "bytes", "type": name, "problem": f"{doubt}; {ADVICE}"} for name, doubt in doubts(self._loaded)
        ]


def _chosen(loaded: Contracts, types: tuple[str, ...]) -> list[Contract]:
    unknown = [loaded.missing(event_type) for event_type in types if event_type not in loaded]
    if unknown:
        raise ConfigError(*unknown)
    return list({found.name: found for found in map(loaded.__getitem__, types or loaded)}.values())

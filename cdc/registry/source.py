"""Reads contracts from a registry: the newest version of each Avro record."""

from collections.abc import Mapping

from cdc.avro import files
from cdc.avro.contracts import Contract, Contracts
from cdc.avro.mapping.rules import Rules
from cdc.errors import ConfigError
from cdc.registry.canonical import same_schema
from cdc.registry.client import Registry


def read(registry: Registry, types: Mapping[str, str], rules: Rules) -> Contracts:
    """Read all subjects. Raises ConfigError for schemas that cannot be used, RegistryError or RegistryUnavailable.

    A record that is registered under several subjects must be the same in all: an event type has one contract.
    """
    texts: dict[str, str] = {}
    for subject in registry.subjects():
        found = registry.latest(subject)
        if found is not None and not any(same_schema(found.text, text) for text in texts.values()):
            texts[f"subject {subject}"] = found.text
    definitions = files.parse(texts)
    contracts = [Contract.of(definition, rules) for definition in definitions if definition.is_contract]
    if not contracts:
        raise ConfigError(f"registry {registry.url} has no Avro record", hint="run: cdc-publisher schema register")
    return Contracts(contracts, types, f"registry {registry.url}", definitions)

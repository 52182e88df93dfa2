"""Confluent's wire format: magic byte 0, the schema's id in four bytes, big-endian, then the Avro body.

<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>
"""

from collections.abc import Mapping, Sequence

from cdc.avro.files import Definition
from cdc.config.settings import Settings
from cdc.registry.client import Reference, Registry
from cdc.registry.errors import RegistryError
from cdc.registry.references import references
from cdc.registry.resolver import Resolver


class Confluent:
    """Headers by topic and contract, resolved once each. Raises RegistryError for permanent errors."""

    def __init__(self, registry: Registry, settings: Settings, definitions: Mapping[str, Definition]) -> None:
        self._registry = registry
        self._definitions = definitions
        self._auto_register = settings.schema_registry.auto_register
        self._resolver = Resolver(registry, settings.avro.subject, self._auto_register, self._text)

    def header(self, topic: str, contract: str) -> bytes | None:
        """Return the header for bodies of `contract` in `topic`; None until the registry has answered."""
        return self._resolver.ask(topic, contract)

    def close(self) -> None:
        """Stop the requests."""
        self._resolver.close()

    def _text(self, contract: str) -> tuple[str, Sequence[Reference]]:
        found = references(self._registry, self._definitions, contract, register=self._auto_register)
        if found is None:
            raise RegistryError(
                f"registry {self._registry.url}: a type that contract {contract} refers to is not registered",
                hint="run: cdc-publisher schema register",
            )
        return self._definitions[contract].text, found

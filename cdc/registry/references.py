"""Finds the types of other schema files that a contract uses, each registered under its own full name."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from cdc.registry.client import Reference, Registered


class Definition(Protocol):
    """The type of one file."""

    @property
    def text(self) -> str: ...
    @property
    def references(self) -> tuple[str, ...]: ...


class RegistryLookup(Protocol):
    """The registry of types."""

    def lookup(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered | None: ...
    def register(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered: ...


def references(
    registry: RegistryLookup, definitions: Mapping[str, Definition], name: str, *, register: bool = False
) -> list[Reference] | None:
    """Return the references of `name`, and register them first on request; None when one is not registered."""
    found: list[Reference] = []
    for part in definitions[name].references if name in definitions else ():
        needed = references(registry, definitions, part, register=register)
        if needed is None:
            return None
        act = registry.register if register else registry.lookup
        registered = act(part, definitions[part].text, needed)
        if registered is None:
            return None
        found.append(Reference(part, part, registered.version))
    return found

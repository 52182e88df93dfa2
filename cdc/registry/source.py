"""Reads contracts from a registry: the newest version of each Avro record that is the publisher's, or may be.

A registry is shared. Subjects of other teams hold schemas of other kinds, keys that are plain strings, and records that
clash with a contract or that Avro does not allow: they are passed over, and none of them stops the publisher.
"""

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from cdc.avro import files
from cdc.avro.contracts import Contract, Contracts
from cdc.avro.files import Definition
from cdc.avro.mapping.rules import Rules
from cdc.avro.subjects import subject as subject_of
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.registry.canonical import canonical
from cdc.registry.client import Registry
from cdc.registry.errors import RegistryError

_AVRO: Final = "AVRO"
_FORBIDDEN: Final = 403


def read(registry: Registry, settings: Settings, rules: Rules) -> Contracts:
    """Read the subjects that `[schema_registry] subjects` selects, or all. Raises RegistryError or RegistryUnavailable.

    A subject is the publisher's own if it is selected, or if its name is one that the publisher would give it: then an
    unusable schema raises ConfigError. Other unusable subjects are in `passed_over` of the result, with the reason. A
    record that is registered under several own subjects must be the same in all: an event type has one contract.
    """
    source = _Source(registry, settings)
    source.fetch()
    definitions, contracts = source.definitions(), []
    for definition in definitions:
        if not definition.is_contract:
            continue
        try:
            contracts.append(Contract.of(definition, rules))
        except files.NO_SCHEMA as error:
            source.pass_over(str(definition.path), files.reason(error))
    if not contracts:
        raise ConfigError(f"registry {registry.url} has no Avro record", hint="run: cdc-publisher schema register")
    return Contracts(contracts, settings.avro.types, f"registry {registry.url}", definitions, source.passed_over)


class _Source:
    """The texts of subjects by their origin, `subject NAME`; `passed_over` maps subjects to reasons."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self.passed_over: dict[str, str] = {}
        self._registry = registry
        self._settings = settings
        self._topic = settings.template.pattern
        self._texts: dict[str, str] = {}
        self._own: set[str] = set()  # origins

    def fetch(self) -> None:
        """Fetch the newest version of each selected subject that holds a named Avro type."""
        wanted, known = self._settings.schema_registry.subjects, set[str]()
        for subject in self._registry.subjects():
            if wanted and not any(fnmatchcase(subject, pattern) for pattern in wanted):
                continue
            try:
                found = self._registry.latest(subject)
            except RegistryError as error:
                if wanted or error.status != _FORBIDDEN:
                    raise
                self.passed_over[subject] = error.message
                continue
            if found is None or found.kind != _AVRO:
                continue
            origin = str(Path(f"subject {subject}"))
            if wanted:
                self._own.add(origin)
            try:
                form = canonical(found.text)
            except ValueError as error:
                self.pass_over(origin, str(error))
                continue
            schema = json.loads(form)
            if form in known or not (isinstance(schema, dict) and "name" in schema):
                continue  # a plain type, such as that of a key, is no contract and no part of one
            known.add(form)
            self._texts[origin] = found.text
            if subject == schema["name"] or self._is_own(subject, schema["name"]):
                self._own.add(origin)

    def _is_own(self, subject: str, name: str) -> bool:
        own = subject_of(self._settings.avro.subject, self._topic, re.escape(name))
        return bool(re.fullmatch(own, subject))

    def definitions(self) -> list[Definition]:
        """Parse the texts, passing over those of others that cannot be used. Raises ConfigError for own ones."""
        while True:
            try:
                return files.parse(dict(sorted(self._texts.items(), key=lambda item: item[0] not in self._own)))
            except ConfigError as error:
                unusable = list(self._foreign(error.problems))
                if not unusable:
                    raise
                for origin, reason in unusable:
                    if self._texts.pop(origin, None) is not None:
                        self.pass_over(origin, reason)

    def _foreign(self, problems: Iterable[str]) -> Iterable[tuple[str, str]]:
        """Yield, for each problem, the origin that is to blame unless it is an own one, and the reason."""
        for problem in problems:
            for origin in self._texts:
                of_it = problem.startswith(f"contract {origin}: ")
                if origin not in self._own and (of_it or problem.endswith(f" is also defined in {origin}")):
                    yield origin, problem.removeprefix(f"contract {origin}: ")

    def pass_over(self, origin: str, reason: str) -> None:
        """Note why a subject is not used. Raises ConfigError when it is an own one."""
        if origin in self._own:
            raise ConfigError(f"contract {origin}: {reason}")
        self.passed_over[origin.removeprefix("subject ")] = reason

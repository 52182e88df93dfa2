"""Resolves the ids of schemas for the publisher, whose main thread must never wait for a registry (fault D1).

Ids are kept, so that an outage of the registry does not affect the schemas in use. The events of a new schema wait, and
all events behind them, while the publisher keeps serving PostgreSQL.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cdc.avro.subjects import Strategy, subject
from cdc.background import Background, TryAgain
from cdc.backoff import Backoff
from cdc.registry.client import Reference, Registered
from cdc.registry.errors import RegistryError, RegistryUnavailable

log = logging.getLogger(__name__)

WARNING_SECONDS: Final = 30.0

Contract = Callable[[str], tuple[str, Sequence[Reference]]]
"""From a contract's name to its schema's text and references."""


class Registry(Protocol):
    """The registry of ids."""

    url: str

    def lookup(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered | None: ...
    def register(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered: ...


class Resolver:
    """Finds ids on a background thread; `ask` and `close` belong to the publisher's thread."""

    def __init__(self, registry: Registry, strategy: Strategy, auto_register: bool, contract: Contract) -> None:
        self._registry = registry
        self._strategy = strategy
        self._auto_register = auto_register
        self._contract = contract
        self._by_subject: dict[tuple[str, str], bytes] = {}  # belongs to the thread
        self._backoff = Backoff(random.random)
        self._background: Background[tuple[str, str], bytes] = Background("cdc-registry")
        self._warn_at = 0.0

    def ask(self, topic: str, contract_name: str) -> bytes | None:
        """Return what precedes a value in Confluent framing; None until that is known.

        Never waits. Raises RegistryError when waiting does not help; to ask after that is to try again.
        """
        return self._background.ask((topic, contract_name), self._header, topic, contract_name)

    def close(self) -> None:
        """Stop asking; a request that hangs is left to its own timeout."""
        self._background.close()

    def _header(self, topic: str, contract_name: str) -> bytes:
        try:
            header = self._resolve(topic, contract_name)
        except RegistryUnavailable as error:
            if not self._background.closed.is_set():  # otherwise that is why
                self._warn(error, topic, contract_name)
            raise TryAgain(self._backoff.pause()) from None  # behind the others: only this subject may be affected
        self._backoff.reset()
        return header

    def _resolve(self, topic: str, contract_name: str) -> bytes:
        name = subject(self._strategy, topic, contract_name)
        known = self._by_subject.get((name, contract_name))
        if known is not None:
            return known
        text, references = self._contract(contract_name)
        found = self._registry.lookup(name, text, references)
        if found is None and self._auto_register:
            found = self._registry.register(name, text, references)
        if found is None:
            raise RegistryError(
                f"registry {self._registry.url}: contract {contract_name} is not registered under subject {name}",
                hint="run: cdc-publisher schema register",
            )
        log.info(
            "schema resolved",
            extra={"event": "schema_resolved", "subject": name, "version": found.version, "id": found.id},
        )
        header = b"\x00" + found.id.to_bytes(4, "big")
        self._by_subject[name, contract_name] = header
        return header

    def _warn(self, error: RegistryUnavailable, topic: str, contract_name: str) -> None:
        now = time.monotonic()
        if now >= self._warn_at:
            self._warn_at = now + WARNING_SECONDS
            log.warning("%s", error, extra={"event": "schema_unavailable", "topic": topic, "contract": contract_name})

"""Ids of schemas for the publisher, whose one thread must never wait for a registry (fault D1).

What is known stays known, so an outage of the registry changes nothing for the schemas in use; a new one waits, and
the publisher with it, while it goes on serving PostgreSQL.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cdc.avro.subjects import Strategy, subject
from cdc.backoff import Backoff
from cdc.registry.client import Reference, Registered
from cdc.registry.errors import RegistryError, RegistryUnavailable

log = logging.getLogger(__name__)

WARNING_SECONDS: Final = 30.0
_CLOSE_SECONDS: Final = 1.0

Contract = Callable[[str], tuple[str, Sequence[Reference]]]
"""From a contract's name to its schema's text and what that refers to."""


class Registry(Protocol):
    """Where ids come from."""

    url: str

    def lookup(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered | None: ...
    def register(self, subject: str, text: str, references: Sequence[Reference] = ()) -> Registered: ...


class Resolver:
    """Finds ids in a thread of its own; `ask` and `close` belong to the publisher's."""

    def __init__(self, registry: Registry, strategy: Strategy, auto_register: bool, contract: Contract) -> None:
        self._registry = registry
        self._strategy = strategy
        self._auto_register = auto_register
        self._contract = contract
        # Each is written by one thread only: the first three by the worker, the last by the publisher's.
        self._headers: dict[tuple[str, str], bytes] = {}
        self._failures: dict[tuple[str, str], Exception] = {}
        self._by_subject: dict[tuple[str, str], bytes] = {}
        self._asked: set[tuple[str, str]] = set()
        self._jobs: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._worker: threading.Thread | None = None
        self._warn_at = 0.0

    def ask(self, topic: str, contract_name: str) -> bytes | None:
        """What stands before a value in confluent framing, or None as long as that is not known: ask again later.

        Never waits. Raises RegistryError when waiting does not help; to ask after that is to try anew.
        """
        key = (topic, contract_name)
        header = self._headers.get(key)
        if header is not None:
            return header
        if key not in self._asked:
            self._asked.add(key)
            self._jobs.put(key)
            self._start()
        elif key in self._failures:
            self._asked.discard(key)
            raise self._failures.pop(key)
        return None

    def close(self) -> None:
        """Stop looking; a request that hangs is left to its own timeout."""
        self._closed.set()
        self._jobs.put(None)
        if self._worker:
            self._worker.join(_CLOSE_SECONDS)

    def _start(self) -> None:
        if self._worker is None:
            # A pool of concurrent.futures is no daemon: a registry that hangs would hold up the end of the process.
            self._worker = threading.Thread(target=self._work, name="cdc-registry", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        backoff = Backoff(random.random)
        while (key := self._jobs.get()) is not None and not self._closed.is_set():
            try:
                self._headers[key] = self._resolve(*key)
                backoff.reset()
            except RegistryUnavailable as error:
                if self._closed.is_set():
                    return  # most likely because of that
                self._warn(error, key)
                self._jobs.put(key)  # behind the others: the trouble may be this subject's alone
                if self._closed.wait(backoff.pause()):
                    return
            except Exception as error:  # whatever it is belongs to who asked
                self._failures[key] = error

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
        log.info("schema resolved", extra={"subject": name, "version": found.version, "id": found.id})
        header = b"\x00" + found.id.to_bytes(4, "big")
        self._by_subject[name, contract_name] = header
        return header

    def _warn(self, error: RegistryUnavailable, key: tuple[str, str]) -> None:
        now = time.monotonic()
        if now >= self._warn_at:
            self._warn_at = now + WARNING_SECONDS
            log.warning("%s", error, extra={"topic": key[0], "contract": key[1]})

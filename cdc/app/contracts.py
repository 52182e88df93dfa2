"""Provides encoders by the contracts in use, from files or from a registry, and the framing of values.

Contracts are pinned when they are read. They are reloaded on SIGHUP and, from a registry, for the first event of an
unknown type.
"""

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from cdc.avro import contracts, files
from cdc.avro.byte_texts import ADVICE
from cdc.avro.contracts import Contract, Contracts
from cdc.avro.framing import SingleObject
from cdc.background import Background, TryAgain
from cdc.config.settings import Settings
from cdc.errors import CdcError, ConfigError, Everywhere, Temporary
from cdc.records.router import Encoder, Framing
from cdc.registry.opening import opened

if TYPE_CHECKING:
    from cdc.registry.client import Registry

log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS: Final = 5.0

_ENOUGH_ROWS: Final = 100  # without bytes, of which each takes the general path


class Schemas:
    """Encoders by event type, and their framing, which change when the contracts are reloaded.

    Raises ConfigError when the settings cannot be used. Call `read` first. All methods belong to one thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        registry = settings.schema_registry
        self._registry = opened(registry) if registry.url else None
        self._contracts: Contracts = Contracts([], {}, "nowhere")
        self._framing: Framing = SingleObject({})
        self.envelope: Contract | None = None
        self._background: Background[str, Contracts] = Background("contracts")
        self._looked_for: set[str] = set()  # unknown types
        self._passed_over: set[tuple[str, str]] = set()  # subjects and reasons, at the last reading
        self._examined: set[str] = set()  # types of which an event had bytes
        self._rows_without_bytes: Counter[str] = Counter()

    def read(self) -> None:
        """Read or reload the contracts. Raises ConfigError, RegistryError or RegistryUnavailable."""
        self._use(self._read())
        self._looked_for.clear()
        self._examined.clear()

    def get(self, event_type: str, /) -> Encoder | None:
        """Return the encoder of an event type by its contract, to Avro unless its records are JSON; or None."""
        return encoder(self._settings, self._contracts.get(event_type), event_type)

    def header(self, topic: str, contract: str) -> bytes | None:
        """Return the bytes before bodies of `contract` in `topic`; None until they are known."""
        return self._framing.header(topic, contract)

    def missing(self, event_type: str) -> str:
        """Return why an event type has no encoder."""
        return self._contracts.missing(event_type)

    def asks_again(self, event_type: str) -> bool:
        """Return whether contracts are being reloaded for an unknown type: once for each. Never waits.

        Raises RegistryError when the registry refuses everything.
        """
        if self._settings.avro.source != "registry" or event_type in self._looked_for:
            return False
        try:
            found = self._background.ask(event_type, self._look)
            if found is None:
                return True
            self._background.forget(event_type)
            self._use(found)
        except Everywhere:
            raise
        except CdcError as error:
            self._warn(error)
        self._looked_for.add(event_type)
        return event_type in self._contracts

    def examine(self, event_type: str, body: bytes) -> bool:
        """Warn if all bytes of an event are the text of an encoding; return whether enough of the type were seen."""
        contract = self._contracts.get(event_type)
        texts = contract.byte_texts if contract else None
        if texts is None or event_type in self._examined:
            return True
        self._rows_without_bytes[event_type] += 1
        if not texts.add(body):
            return self._rows_without_bytes[event_type] >= _ENOUGH_ROWS
        self._examined.add(event_type)
        if texts.doubtful:
            log.warning(
                "%s: the values of %s look like base64 or hex, and their characters are sent as bytes; %s",
                event_type,
                ", ".join(texts.doubtful),
                ADVICE,
                extra={"event": "bytes_look_encoded", "type": event_type, "fields": ", ".join(texts.doubtful)},
            )
        return True

    @property
    def names(self) -> list[str]:
        """The full names of the contracts."""
        return sorted({contract.name for contract in self._contracts.values()})

    def close(self) -> None:
        """Close the connection to the registry."""
        self._framing.close()
        if self._registry:
            self._registry.close()
        self._background.close()

    def _look(self) -> Contracts:
        """Read the contracts for an unknown type, which waits as long as the registry cannot be reached."""
        try:
            return self._read()
        except Temporary as error:
            if not self._background.closed.is_set():
                self._warn(error)
            raise TryAgain(_LOOK_AGAIN_SECONDS) from None

    @staticmethod
    def _warn(error: CdcError) -> None:
        log.warning(
            "reloading contracts failed; keeping the previous ones: %s",
            error,
            extra={"event": "contract_lookup_failed"},
        )

    def _read(self) -> Contracts:
        return load(self._settings, self._registry)

    def _use(self, read: Contracts) -> None:
        self._contracts = read
        for subject, reason in read.passed_over.items() - self._passed_over:
            log.warning(
                "passed over a subject of the registry",
                extra={"event": "subject_passed_over", "subject": subject, "reason": reason},
            )
        self._passed_over = set(read.passed_over.items())
        known = {contract.name: contract for contract in read.values()}
        definitions = dict(read.definitions)
        if self._settings.avro.unknown_types == "envelope":
            own = contracts.load(files.shipped("cdc"), {}, self._settings.avro.rules)
            self.envelope = known["cdc.Envelope"] = own["cdc.Envelope"]
            definitions |= own.definitions
        self._framing.close()
        if self._settings.avro.framing == "confluent" and self._registry:
            from cdc.registry.framing import Confluent

            self._framing = Confluent(self._registry, self._settings, definitions)
        else:
            self._framing = SingleObject({name: contract.header for name, contract in known.items()})


def encoder(settings: Settings, contract: Contract | None, event_type: str) -> Encoder | None:
    """Return the encoder of an event type by its contract: to JSON if its records are JSON, else to Avro."""
    if contract is None or settings.record.of(event_type) != "json":
        return contract
    return contract.json_encoder(settings.record.form)


def load(settings: Settings, registry: "Registry | None") -> Contracts:
    """Load the configured contracts, or none if all records are text that is not checked.

    Raises ConfigError, RegistryError and RegistryUnavailable.
    """
    if not settings.record.needs_contracts:
        return Contracts([], {}, "nowhere: all records are text")
    if settings.avro.source == "registry" and registry:
        from cdc.registry import source

        found = source.read(registry, settings, settings.avro.rules)
    else:
        found = contracts.load(settings.avro.schemas, settings.avro.types, settings.avro.rules)
    problems = {}
    for event_type, contract in found.items():
        try:
            encoder(settings, contract, event_type)
        except ValueError as error:
            problems[contract.name] = f"contract {contract.source} cannot be written as JSON: {error}"
    if problems:
        raise ConfigError(*problems.values())
    return found

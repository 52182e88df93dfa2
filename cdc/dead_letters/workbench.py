"""Making records by hand as the publisher makes them: by the contracts of today, no larger than their topic takes."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cdc.app.contracts import Schemas
from cdc.config.settings import Settings
from cdc.dead_letters.sending import Destinations
from cdc.errors import CdcError, Temporary
from cdc.outbox.events import Outbox
from cdc.records.encoding import Encoding, Pending
from cdc.records.record import Record, batch_size

_LOOK_SECONDS: Final = 0.05
_GRACE_SECONDS: Final = 5.0


class Workbench:
    """Contracts and topics. Raises ConfigError when the contracts cannot be used, and the registry's errors."""

    def __init__(self, settings: Settings, *, dry: bool) -> None:
        self.destinations = Destinations(settings, dry=dry)
        self._settings = settings
        self._patience = settings.schema_registry.timeout_seconds + _GRACE_SECONDS
        self._schemas = Schemas(settings)
        try:
            self._schemas.read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave."""
        self._schemas.close()

    def encoding(self, outbox: Outbox) -> Encoding:
        """What makes records of the outbox's events."""
        return Encoding(
            outbox,
            self._schemas,
            self._schemas,
            envelope=self._schemas.envelope,
            frame_bytea=self._settings.avro.bytea == "body",
        )

    def made(self, event_type: str, make: Callable[[], Record]) -> Record:
        """The record that `make` makes. Raises its errors, CdcError when it is too large, Temporary without its id."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                record = make()
                break
            except Pending:
                if time.monotonic() >= deadline:
                    raise Temporary(f"the schema's id of {event_type} is not known: the registry gives none") from None
                time.sleep(_LOOK_SECONDS)
        largest, size = self.destinations.largest(record.topic), batch_size(record)
        if size > largest:
            raise CdcError(f"a record of {size} bytes is too large for topic {record.topic!r}, which takes {largest}")
        return record


def now() -> str:
    """The time as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

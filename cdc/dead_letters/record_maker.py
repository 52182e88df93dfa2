"""Makes records as the publisher does: by the current contracts, and no larger than their topic takes."""

import time
from collections.abc import Callable
from typing import Final

from cdc.app.contracts import Schemas
from cdc.config.settings import Settings
from cdc.dead_letters.producer import Destinations
from cdc.errors import CdcError, Temporary
from cdc.outbox.events import Outbox
from cdc.records.encoding import Encoding
from cdc.records.record import Record, batch_size
from cdc.records.router import Pending

_LOOK_SECONDS: Final = 0.02
_GRACE_SECONDS: Final = 5.0


def wait_for(make: Callable[[], Record], seconds: float, complaint: str) -> Record:
    """Return the record that `make` returns once it does not raise Pending any more.

    Raises its other errors, and Temporary with the complaint after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return make()
        except Pending:
            if time.monotonic() >= deadline:
                raise Temporary(complaint) from None
            time.sleep(_LOOK_SECONDS)


class RecordTooLarge(CdcError):
    """A record that its topic does not take."""


class RecordMaker:
    """Contracts and topics. Raises ConfigError when the contracts cannot be used, and the registry's errors."""

    def __init__(self, settings: Settings, *, dry_run: bool) -> None:
        self.destinations = Destinations(settings, dry_run=dry_run)
        self._settings = settings
        self._patience = settings.schema_registry.timeout_seconds + _GRACE_SECONDS
        self._schemas = Schemas(settings)
        try:
            self._schemas.read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection to the registry."""
        self._schemas.close()

    def encoding(self, outbox: Outbox) -> Encoding:
        """Return the encoding of the outbox's events."""
        return Encoding(
            outbox,
            self._schemas,
            self._schemas,
            envelope=self._schemas.envelope,
            frame_bytea=self._settings.avro.bytea == "body",
            values=self._settings.record,
        )

    def make(self, event_type: str, encode: Callable[[], Record]) -> Record:
        """Return the record that `encode` returns once the schema's id is known.

        Raises its errors, RecordTooLarge, and Temporary when the id stays unknown.
        """
        complaint = (
            f"the registry has not returned the schema id of {event_type}: see that it runs and that"
            " [schema_registry] url names it, then run the command again"
        )
        record = wait_for(encode, self._patience, complaint)
        largest, size = self.destinations.largest(record.topic), batch_size(record)
        if size > largest:
            raise RecordTooLarge(
                f"a record of {size} bytes is too large for topic {record.topic!r}, which takes {largest}"
            )
        return record

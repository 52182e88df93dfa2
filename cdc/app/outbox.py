"""Makes the outbox that the settings describe, for all who make events of its rows."""

from cdc.config.settings import Settings
from cdc.lsn import LSN
from cdc.outbox.events import Outbox
from cdc.outbox.keys import Keys


def outbox_of(
    settings: Settings, stream: str, keys: Keys, *, suited_at: LSN | None = None, time: str | None = None
) -> Outbox:
    """Return what makes events of rows; for `suited_at` see `Outbox`.

    `time` is the column with the time of records where the settings name none.
    """
    return Outbox(
        stream,
        settings.outbox.parts,
        settings.template,
        settings.outbox.header_columns,
        tombstones=settings.outbox.tombstones,
        suited_at=suited_at,
        iso=settings.outbox.header_format == "iso",
        keys=keys,
        time=settings.record.time_column or time,
    )

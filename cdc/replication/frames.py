"""The envelope around pgoutput: CopyData payloads of the streaming replication protocol.

Two kinds come in, XLogData and keepalive; one goes out, the standby status update.
<https://www.postgresql.org/docs/current/protocol-replication.html>
"""

import struct
from typing import Final, NamedTuple

from cdc.errors import ProtocolError
from cdc.lsn import LSN

XLOG_DATA: Final = b"w"
KEEPALIVE: Final = b"k"
XLOG_HEADER_SIZE: Final = 25  # kind, start LSN, end LSN, server clock; the pgoutput message follows

EPOCH_OFFSET_MS: Final = 946_684_800_000  # 2000-01-01 in Unix time: PostgreSQL counts from there

_keepalive_fields = struct.Struct(">cQqB")
_status_fields = struct.Struct(">cQQQqB")


class Keepalive(NamedTuple):
    wal_end: LSN  # everything before this has been decoded and sent
    reply_requested: bool


def keepalive(frame: bytes) -> Keepalive:
    """Decode a primary keepalive. Raises ProtocolError when it has the wrong size."""
    if len(frame) != _keepalive_fields.size:
        raise ProtocolError(f"keepalive of {len(frame)} bytes, not {_keepalive_fields.size}")
    _, wal_end, _, reply = _keepalive_fields.unpack(frame)
    return Keepalive(LSN(wal_end), bool(reply))


def status_update(confirmed: LSN, unix_time: float, *, reply_requested: bool = False) -> bytes:
    """Encode a standby status update that confirms everything before `confirmed`.

    Written, flushed and applied are one and the same: for us nothing is written until Kafka has it.
    `unix_time` (seconds) only shows in `pg_stat_replication.reply_time`.
    """
    sent_at = round(unix_time * 1_000_000) - EPOCH_OFFSET_MS * 1000
    return _status_fields.pack(b"r", confirmed, confirmed, confirmed, sent_at, reply_requested)

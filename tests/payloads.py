"""Golden payloads: what PostgreSQL 18.6 sent, the SQL that made it, and what it means.

Captured by `python -m tests.capture_payloads DSN`, whose SETUP makes the tables; the messages are written by hand.
Protocol version 1 with `messages 'true'`.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

from cdc.lsn import LSN
from cdc.replication.messages import (
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Truncate,
    TupleData,
    Type,
    Update,
)

OUTBOX_OID: Final = 0x4041
NOTE_OID: Final = 0x404A
FULL_NOTE_OID: Final = 0x4052
MOOD_OID: Final = 0x403D

EVENT_ID: Final = "00112233-4455-6677-8899-aabbccddeeff"


class Golden(NamedTuple):
    """One pgoutput message."""

    sql: str
    payload: bytes
    message: Message


INSERT_SQL = f"insert into outbox values ('{EVENT_ID}', 'order', 'o-1', 'OrderPlaced', '{{\"n\": 1}}')"
ORIGIN_SQL = (
    "select pg_replication_origin_session_setup('far away');"
    " select pg_replication_origin_xact_setup('AB/CDEF0123', '2026-01-31 12:00:00+00');"
    " insert into full_note values (8, 'c')"
)
ORIGIN_TIME = datetime(2026, 1, 31, 12, tzinfo=UTC) - datetime(2000, 1, 1, tzinfo=UTC)

# The whole CopyData payload: XLogData around a Begin.
XLOG_DATA = bytes.fromhex(
    "7700000000077ead6000000000077ead60000303c5982ebee7"
    "4200000000077eae80000303c5982e7d5a00009f49"
)  # fmt: skip
# Sent once the server had nothing left to send.
KEEPALIVE = bytes.fromhex("6b00000000077ed9f8000303c5982ec19a00")

BEGIN = Golden(
    INSERT_SQL,
    bytes.fromhex("4200000000077eae80000303c5982e7d5a00009f49"),
    Begin(LSN(0x077EAE80), 0x0303C5982E7D5A, 40777),
)
COMMIT = Golden(
    INSERT_SQL,
    bytes.fromhex("430000000000077eae8000000000077eaeb0000303c5982e7d5a"),
    Commit(0, LSN(0x077EAE80), LSN(0x077EAEB0), 0x0303C5982E7D5A),
)
BEGIN_OF_ORIGIN = Golden(
    ORIGIN_SQL,
    bytes.fromhex("4200000000077ed9b00002ecac9911500000009f55"),
    Begin(LSN(0x077ED9B0), ORIGIN_TIME.days * 86_400_000_000 + ORIGIN_TIME.seconds * 1_000_000, 40789),
)
ORIGIN = Golden(
    ORIGIN_SQL,
    bytes.fromhex("4f000000abcdef0123666172206177617900"),
    Origin(LSN.parse("AB/CDEF0123"), "far away"),
)
OUTBOX_RELATION = Golden(
    INSERT_SQL,
    bytes.fromhex(
        "52000040417075626c6963006f7574626f78006400050169640000000b86ffffffff00616767726567617465747970650000000019"
        "ffffffff0061676772656761746569640000000019ffffffff00747970650000000019ffffffff007061796c6f61640000000edaffffffff"
    ),
    Relation(
        OUTBOX_OID,
        "public",
        "outbox",
        "d",
        (
            Column(1, "id", 2950, -1),
            Column(0, "aggregatetype", 25, -1),
            Column(0, "aggregateid", 25, -1),
            Column(0, "type", 25, -1),
            Column(0, "payload", 3802, -1),
        ),
    ),
)
FULL_RELATION = Golden(
    "insert into full_note values (7, 'a')",
    bytes.fromhex(
        "52000040527075626c69630066756c6c5f6e6f7465006600020169640000000017ffffffff01626f64790000000019ffffffff"
    ),
    Relation(FULL_NOTE_OID, "public", "full_note", "f", (Column(1, "id", 23, -1), Column(1, "body", 25, -1))),
)
TYPE = Golden(
    "insert into note values (1, 'calm', repeat('x', 3000))",
    bytes.fromhex("590000403d7075626c6963006d6f6f6400"),
    Type(MOOD_OID, "public", "mood"),
)
INSERT_TEXT = Golden(
    INSERT_SQL,
    bytes.fromhex(
        "49000040414e0005740000002430303131323233332d343435352d363637372d383839392d616162626363646465656666"
        "74000000056f7264657274000000036f2d31740000000b4f72646572506c6163656474000000087b226e223a20317d"
    ),
    Insert(OUTBOX_OID, TupleData(b"ttttt", [EVENT_ID.encode(), b"order", b"o-1", b"OrderPlaced", b'{"n": 1}'])),
)
INSERT_BINARY = Golden(
    f"{INSERT_SQL} -- read with binary 'true'",
    bytes.fromhex(
        "49000040414e0005620000001000112233445566778899aabbccddeeff62000000056f7264657262000000036f2d31"
        "620000000b4f72646572506c616365646200000009017b226e223a20317d"
    ),
    Insert(
        OUTBOX_OID,
        TupleData(
            b"bbbbb",
            [bytes.fromhex(EVENT_ID.replace("-", "")), b"order", b"o-1", b"OrderPlaced", b'\x01{"n": 1}'],
        ),
    ),
)
INSERT_NULLS = Golden(
    "insert into outbox values (gen_random_uuid(), 'order', null, 'é', null)",
    bytes.fromhex(
        "49000040414e0005740000002433633962386632392d626337372d343139312d623766612d333434323936373865613563"
        "74000000056f726465726e7400000002c3a96e"
    ),
    Insert(
        OUTBOX_OID,
        TupleData(b"ttntn", [b"3c9b8f29-bc77-4191-b7fa-34429678ea5c", b"order", b"", "é".encode(), b""]),
    ),
)
UPDATE_PLAIN = Golden(
    "insert into outbox (same id) on conflict (id) do update set aggregateid = null, type = 'é', payload = null",
    bytes.fromhex(
        "55000040414e0005740000002430303131323233332d343435352d363637372d383839392d616162626363646465656666"
        "74000000056f726465726e7400000002c3a96e"
    ),
    Update(OUTBOX_OID, None, None, TupleData(b"ttntn", [EVENT_ID.encode(), b"order", b"", "é".encode(), b""])),
)
UPDATE_TOAST = Golden(
    "update note set mood = 'busy' where id = 1 -- body is TOASTed and unchanged",
    bytes.fromhex("550000404a4e000374000000013174000000046275737975"),
    Update(NOTE_OID, None, None, TupleData(b"ttu", [b"1", b"busy", b""])),
)
UPDATE_KEY = Golden(
    "update note set id = 2, mood = null where id = 1",
    bytes.fromhex("550000404a4b00037400000001316e6e4e00037400000001326e75"),
    Update(NOTE_OID, TupleData(b"tnn", [b"1", b"", b""]), None, TupleData(b"tnu", [b"2", b"", b""])),
)
UPDATE_OLD = Golden(
    "update full_note set body = 'b' where id = 7 -- REPLICA IDENTITY FULL",
    bytes.fromhex("55000040524f00027400000001377400000001614e0002740000000137740000000162"),
    Update(FULL_NOTE_OID, None, TupleData(b"tt", [b"7", b"a"]), TupleData(b"tt", [b"7", b"b"])),
)
DELETE_KEY = Golden(
    "delete from note where id = 2",
    bytes.fromhex("440000404a4b00037400000001326e6e"),
    Delete(NOTE_OID, TupleData(b"tnn", [b"2", b"", b""]), None),
)
DELETE_OLD = Golden(
    "delete from full_note where id = 7 -- REPLICA IDENTITY FULL",
    bytes.fromhex("44000040524f0002740000000137740000000162"),
    Delete(FULL_NOTE_OID, None, TupleData(b"tt", [b"7", b"b"])),
)
TRUNCATE = Golden(
    "truncate note, full_note restart identity cascade",
    bytes.fromhex("5400000002030000404a00004052"),
    Truncate(3, (NOTE_OID, FULL_NOTE_OID)),
)
MESSAGE = Golden(
    "select pg_logical_emit_message(true, 'heartbeat', 'beat')",
    bytes.fromhex("4d0100000000077ed900686561727462656174000000000462656174"),
    LogicalMessage(True, LSN(0x077ED900), "heartbeat", b"beat"),
)
MESSAGE_AT_ONCE = Golden(
    "select pg_logical_emit_message(false, 'note', '\\x00ff'::bytea) -- not transactional: between transactions",
    bytes.fromhex("4d0000000000077ed9706e6f7465000000000200ff"),
    LogicalMessage(False, LSN(0x077ED970), "note", b"\x00\xff"),
)

ALL: Final = {name.lower(): value for name, value in list(globals().items()) if isinstance(value, Golden)}

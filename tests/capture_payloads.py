"""Captures the golden payloads of payloads.py from a real server: `python -m tests.capture_payloads DSN`.

Makes a database of its own and drops it. Prints each payload as hex, under the SQL that made it; LSNs, times,
xids and oids differ from run to run, so what changed in payloads.py must be read, not pasted blindly.
"""

import select
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

DATABASE = "cdc_capture_payloads"

SETUP = """
create type mood as enum ('calm', 'busy');
create table outbox (id uuid primary key, aggregatetype text not null, aggregateid text, type text, payload jsonb);
create table note (id int primary key, mood mood, body text);
alter table note alter column body set storage external;
create table full_note (id int, body text);
alter table full_note replica identity full;
create publication golden for all tables;
select pg_replication_origin_create('far away');
"""

# Each is one transaction. The frames of each are printed under its text.
STEPS = (
    "insert into outbox values ('00112233-4455-6677-8899-aabbccddeeff', 'order', 'o-1', 'OrderPlaced', '{\"n\": 1}')",
    "insert into outbox values ('00112233-4455-6677-8899-aabbccddeeff'::uuid, 'order', null, 'é', null)"
    " on conflict (id) do update set aggregateid = null, type = 'é', payload = null",
    "insert into outbox values (gen_random_uuid(), 'order', null, 'é', null)",
    "insert into note values (1, 'calm', repeat('x', 3000))",
    "update note set mood = 'busy' where id = 1",
    "update note set id = 2, mood = null where id = 1",
    "insert into full_note values (7, 'a')",
    "update full_note set body = 'b' where id = 7",
    "delete from note where id = 2",
    "delete from full_note where id = 7",
    "truncate note, full_note restart identity cascade",
    "select pg_logical_emit_message(true, 'heartbeat', 'beat')",
    "select pg_logical_emit_message(false, 'note', '\\x00ff'::bytea)",
    "select pg_replication_origin_session_setup('far away');"
    " select pg_replication_origin_xact_setup('AB/CDEF0123', '2026-01-31 12:00:00+00');"
    " insert into full_note values (8, 'c')",
)


def main(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as server:
        server.execute(f"create database {DATABASE}".encode())
        try:
            _capture(make_conninfo(dsn, dbname=DATABASE))
        finally:
            server.execute(
                "select pg_replication_origin_drop(roname) from pg_replication_origin where roname = 'far away'"
            )
            server.execute(f"drop database {DATABASE} with (force)".encode())


def _capture(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as writer:
        writer.execute(SETUP.encode())
        streams = {"text": _stream(dsn), "binary": _stream(dsn)}
        marks = []
        for step in STEPS:
            writer.execute(f"begin; {step}; commit".encode())
            row = writer.execute("select pg_current_wal_flush_lsn() - '0/0'").fetchone()
            marks.append((int(row[0]) if row else 0, step))
        for name, stream in streams.items():
            options = "proto_version '1', publication_names 'golden', messages 'true'"
            options += ", binary 'true'" if name == "binary" else ""
            result = stream.pgconn.exec_(
                f"START_REPLICATION SLOT capture_{id(stream)} LOGICAL 0/0 ({options})".encode()
            )
            assert result.status == pq.ExecStatus.COPY_BOTH, result.error_message
            print(f"######## {name}")
            _show(_frames(stream, marks[-1][0]), marks)
            stream.close()


def _stream(dsn: str) -> "psycopg.Connection[tuple[Any, ...]]":
    """A replication connection with a slot of its own that ends with it."""
    stream = psycopg.connect(make_conninfo(dsn, replication="database"), autocommit=True)
    command = f"CREATE_REPLICATION_SLOT capture_{id(stream)} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')"
    result = stream.pgconn.exec_(command.encode())
    assert result.status == pq.ExecStatus.TUPLES_OK, result.error_message
    return stream


def _frames(stream: "psycopg.Connection[tuple[Any, ...]]", end_lsn: int) -> Iterator[bytes]:
    """Frames up to the first keepalive that has passed `end_lsn`."""
    while True:
        length, data = stream.pgconn.get_copy_data(1)
        if length > 0:
            frame = bytes(data)
            yield frame
            if frame[:1] == b"k" and int.from_bytes(frame[1:9], "big") >= end_lsn:
                return
        elif length == 0:
            select.select([stream.pgconn.socket], [], [])
            stream.pgconn.consume_input()
        else:
            raise SystemExit(stream.pgconn.get_error_message())


def _show(frames: Iterator[bytes], marks: list[tuple[int, str]]) -> None:
    steps = iter([*(step for _, step in marks), "(end)"])
    print(f"\n-- {next(steps)}")
    for frame in frames:
        kind = chr(frame[0]) if frame[0] != ord("w") else f"w {chr(frame[25])}"
        print(f"{kind}: {frame.hex() if len(frame) < 400 else f'({len(frame)} bytes)'}")
        if frame[25:26] == b"C":
            print(f"\n-- {next(steps)}")


if __name__ == "__main__":
    main(sys.argv[1])

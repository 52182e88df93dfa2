"""The ceiling: a reader that discards PostgreSQL's messages as fast as they can be read.

It is a separate process, like the publisher: `python -m benchmarks.ceiling DSN SLOT EVENTS WAIT_US`. It reads in bursts
(reads all available data, polls once more, and sleeps if there is none), prints its findings, and keeps the connection
until its input ends, so that the walsender's CPU time can still be read.
"""

import json
import resource
import sys
import time
from typing import Any, Final

import psycopg
from psycopg import pq

from benchmarks.backlog import PUBLICATION
from cdc.lsn import LSN
from cdc.postgres.source import WIDEN
from cdc.replication.frames import status_update

WAITS_US: Final = (0, 50, 100, 200, 500, 5_000, 10_000, 20_000, 50_000)
"""Longer ones too: at the heels of a fast reader the walsender makes a system call for each message, behind a slow one
it finds the socket's buffer full and sends what has gathered at once (8.5 or 4.2 us/event, measured)."""
STATUS_SECONDS: Final = 5.0
INSERT: Final = ord("I")
HEADER: Final = 25  # of XLogData: the kind of the pgoutput message follows


def main(dsn: str, slot: str, events: int, wait_us: int) -> None:
    pgconn = _started(dsn, slot)
    first_at, last_at, first = _read(pgconn, events, wait_us / 1e6)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rate = (events - first) / (last_at - first_at)
    print(json.dumps({"rate": rate, "last_at": last_at, "cpu": usage.ru_utime + usage.ru_stime}), flush=True)
    sys.stdin.read()


def _started(dsn: str, slot: str) -> pq.abc.PGconn:
    connection = psycopg.connect(dsn, autocommit=True, replication="database")
    options = f"proto_version '1', publication_names '{PUBLICATION}', binary 'true'"
    command = f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 ({options})'
    connection.pgconn.exec_(WIDEN)  # the best that is known for a reader, as the publisher has it
    result = connection.pgconn.exec_(command.encode())
    if result.status != pq.ExecStatus.COPY_BOTH:
        raise RuntimeError(result.error_message.decode())
    _kept.append(connection)
    return connection.pgconn


_kept: list[Any] = []  # a connection that is collected is closed


def _read(pgconn: pq.abc.PGconn, events: int, wait: float) -> tuple[float, float, int]:
    """Return when 5 % and when all events were read (Unix time), and the number of events in those 5 %."""
    count, share, told = 0, max(1, events // 20), time.monotonic()
    first_at, first = 0.0, 0
    while count < events:
        count += _burst(pgconn, wait)
        if not first and count >= share:
            first_at, first = time.time(), count
        if time.monotonic() - told > STATUS_SECONDS:
            told = time.monotonic()
            pgconn.put_copy_data(status_update(LSN(0), time.time()))  # 0: the slot stays where it is
            pgconn.flush()
    return first_at, time.time(), first


def _burst(pgconn: pq.abc.PGconn, wait: float) -> int:
    """Read all available data, then wait; return the number of rows read."""
    count, drained, get_copy_data = 0, False, pgconn.get_copy_data
    while True:
        length, data = get_copy_data(1)
        if length > HEADER:
            count += data[HEADER] == INSERT
            drained = False
        elif length < 0:
            raise RuntimeError("PostgreSQL ended the stream")
        elif not length and drained:
            break
        elif not length:
            pgconn.consume_input()
            drained = True
    if wait:
        time.sleep(wait)  # meanwhile the walsender fills the buffer without waking this process
    return count


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

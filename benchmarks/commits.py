"""Commit transactions inside PostgreSQL at a steady rate, and record the time of each commit.

A procedure in several sessions inserts one row per transaction by a schedule that does not depend on the publisher
(open loop): a late commit stays in the schedule. No client slows it down.
"""

import concurrent.futures
import time
from dataclasses import dataclass
from typing import Final

import psycopg

from benchmarks import workload
from benchmarks.backlog import Backlog

LEAD_SECONDS: Final = 0.5  # until all sessions are there

_PROCEDURE: Final = """
create procedure bench_write(first bigint, step bigint, pause float8, total int, begin_at timestamptz)
language plpgsql as $$
declare due timestamptz; late float8; returned timestamptz[]; transactions xid[];
begin
  for i in 0 .. total - 1 loop
    due := begin_at + i * pause * interval '1 second';
    late := extract(epoch from clock_timestamp() - due);
    if late < 0 then perform pg_sleep(-late); end if;
    insert into outbox {rows} from (select first + i * step as n) numbers;
    transactions[i] := pg_current_xact_id()::xid;
    commit;
    returned[i] := clock_timestamp();
  end loop;
  insert into bench_commits
    select first + i * step, begin_at + i * pause * interval '1 second', returned[i], transactions[i]
    from generate_series(0, total - 1) i;
  commit;
end $$
"""

_TIMES: Final = """
select {id}::text, extract(epoch from returned)::float8, extract(epoch from returned - due)::float8, {stamp}
from bench_commits
"""
_STAMP: Final = "extract(epoch from pg_xact_commit_timestamp(xid))::float8"


@dataclass(frozen=True, slots=True)
class Commit:
    """The time of a commit, in Unix time: when COMMIT returned, and PostgreSQL's commit timestamp."""

    id: str
    returned: float
    late: float  # seconds behind the schedule
    stamped: float | None  # before the flush of the WAL; None unless the server has track_commit_timestamp


def prepare(backlog: Backlog) -> None:
    """Create the procedure and its table of commit times, which is not published."""
    backlog.query("create unlogged table bench_commits (n bigint, due timestamptz, returned timestamptz, xid xid)")
    backlog.query(_PROCEDURE.format(rows=workload.rows_sql(backlog.workload)))


def sessions(rate: int) -> int:
    """Return the number of concurrent sessions: one waits for the disk while others work."""
    return 1 if rate <= 200 else 4 if rate <= 2000 else 16


def write(backlog: Backlog, rate: int, seconds: float) -> list[Commit]:
    """Commit `rate` rows per second durably, and return the commits."""
    backlog.query("truncate bench_commits, outbox")
    count, begin_at = sessions(rate), time.time() + LEAD_SECONDS
    total = int(rate * seconds / count)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(_call, backlog.dsn, n, count, rate, total, begin_at) for n in range(count)]:
            done.result()
    return _times(backlog)


def _call(dsn: str, session: int, count: int, rate: int, total: int, begin_at: float) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = on")
        statement = f"call bench_write({1 + session}, {count}, {count / rate}, {total}, to_timestamp({begin_at}))"
        connection.execute(statement.encode())


def _times(backlog: Backlog) -> list[Commit]:
    stamps = backlog.query("show track_commit_timestamp")[0][0] == "on"
    rows = backlog.query(_TIMES.format(id=workload.ID_SQL, stamp=_STAMP if stamps else "null::float8"))
    return [Commit(*row) for row in rows]

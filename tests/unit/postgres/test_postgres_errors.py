"""What PostgreSQL's errors mean for us, in the words of versions 15 and 18: wait, stand by, or give up and say why."""

from dataclasses import replace

import psycopg
import pytest

from cdc.errors import (
    CdcError,
    ConfigError,
    Locked,
    PostgresError,
    PostgresRefused,
    PostgresUnavailable,
    SlotActive,
    SlotLost,
)
from cdc.lsn import LSN
from cdc.postgres.connection import classified, query, refusal
from cdc.postgres.sentinel import tells_of_shutdown
from cdc.postgres.slot_health import Health, problem, unfit, warning

WAIT, STANDBY, STOP, REFUSED, LOST = PostgresUnavailable, SlotActive, PostgresError, PostgresRefused, SlotLost
CONFIG = ConfigError


@pytest.mark.parametrize(
    ("sqlstate", "text", "kind", "hint"),
    [
        # A22: the server stumbles while it decodes, and does not the next time.
        ("58P01", 'could not open file "pg_replslot/s/xid-750-lsn-0-1000000.spill": No such file', WAIT, ""),
        ("XX000", "could not read from reorderbuffer spill file: read 0 instead of 12 bytes", WAIT, ""),
        ("58P01", 'could not rename file "pg_logical/snapshots/0-1.snap.1.tmp": No such file or directory', WAIT, ""),
        ("XX000", "could not find record while sending logically-decoded data: missing contrecord at 0/1", WAIT, ""),
        ("58P01", "requested WAL segment 000000010000000000000003 has already been removed", WAIT, ""),
        ("XX000", "unrecognized SI message ID: 7", WAIT, ""),
        ("40001", "could not serialize access due to concurrent update", WAIT, ""),
        ("53100", "could not write to file: No space left on device", WAIT, ""),
        ("53200", "out of memory", WAIT, ""),
        ("55P03", "canceling statement due to lock timeout", Locked, "wait for the end of that transaction"),
        # B18
        ("53300", "sorry, too many clients already", WAIT, ""),
        ("53300", 'number of requested standby connections exceeds "max_wal_senders" (currently 1)', WAIT, ""),
        ("57P01", "terminating connection due to administrator command", WAIT, ""),
        ("57P02", "terminating connection because of crash of another server process", WAIT, ""),
        ("57P03", "the database system is starting up", WAIT, ""),
        ("08006", "server closed the connection unexpectedly", WAIT, ""),
        (None, "server closed the connection unexpectedly", WAIT, ""),
        # B15
        ("55006", 'replication slot "s" is active for PID 4711', STANDBY, ""),
        # What no waiting mends.
        ("XX001", "missing chunk number 0 for toast value 16390 in pg_toast_16385", STOP, ""),
        ("XX000", "invalid memory alloc request size 1073741824", STOP, "slot drop"),
        ("54000", "out of memory: cannot enlarge string buffer containing 1073741822 bytes", STOP, ""),
        ("55000", 'cannot read from logical replication slot "s"', LOST, "cdc-publisher recover"),  # 15
        ("55000", 'can no longer access replication slot "s"', LOST, "cdc-publisher recover"),  # 18
        ("55000", 'can no longer get changes from replication slot "s"', LOST, "cdc-publisher recover"),  # 14
        ("55000", 'replication slot "s" was not created in this database', STOP, "[postgres] dsn"),
        ("55000", "logical decoding requires wal_level >= logical", STOP, "wal_level"),  # 15
        ("55000", 'logical decoding requires "wal_level" >= "logical"', STOP, "wal_level"),  # 18
        ("55000", "recovery is in progress", STOP, "primary"),
        ("42704", 'replication slot "s" does not exist', LOST, "slot create"),
        ("42704", 'publication "p" does not exist', STOP, "outbox init"),
        ("42501", "must be superuser or replication role to use replication slots", STOP, "REPLICATION"),  # 15
        ("42501", "permission denied to use replication slots", STOP, "REPLICATION"),  # 18
        ("25006", "cannot execute CREATE TABLE in a read-only transaction", STOP, "primary"),
        ("3D000", 'database "d" does not exist', STOP, "[postgres] dsn"),
        ("0A000", "unrecognized pgoutput option: binary", STOP, ""),
        ("22023", "invalid publication_names syntax", STOP, ""),
        ("28P01", 'password authentication failed for user "u"', REFUSED, "password"),
        ("28000", 'role "u" is not permitted to log in', REFUSED, "user"),
    ],
)
def test_a22_b2_b18_b20_an_error_is_classified_by_its_sqlstate_and_text(
    sqlstate: str | None, text: str, kind: type[CdcError], hint: str
) -> None:
    error = classified(sqlstate, text, "streaming")
    assert type(error) is kind
    assert error.message.startswith(f"PostgreSQL, streaming: {text}")
    assert hint in error.hint
    assert bool(error.hint) == bool(hint)


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        ("connection refused. Is the server running on that host", WAIT, "check that it runs"),
        ('could not translate host name "pg" to address: Temporary failure in name resolution', WAIT, "check"),
        ("FATAL:  the database system is starting up", WAIT, "check"),
        ("FATAL:  the database system is shutting down", WAIT, "check"),
        ("FATAL:  the database system is in recovery mode", WAIT, "check"),
        ("FATAL:  sorry, too many clients already", WAIT, "check"),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", WAIT, "check"),
        ('FATAL:  too many connections for role "u"', WAIT, "check"),
        ('FATAL:  number of requested standby connections exceeds "max_wal_senders" (currently 1)', WAIT, "check"),
        ("connection timeout expired", WAIT, "check"),
        ("session is read-only", WAIT, "[postgres] dsn"),
        ('FATAL:  password authentication failed for user "u"', REFUSED, "password"),
        ("fe_sendauth: no password supplied", REFUSED, "password"),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "u", database "d", no encryption', REFUSED, "pg_hba.conf"),
        ('FATAL:  pg_hba.conf rejects replication connection for host "::1", user "u"', REFUSED, "pg_hba.conf"),
        ('FATAL:  role "u" does not exist', REFUSED, "[postgres] dsn"),
        ('FATAL:  role "u" is not permitted to log in', REFUSED, "LOGIN"),
        ('FATAL:  database "d" does not exist', REFUSED, "[postgres] dsn"),
        ('FATAL:  database "d" is not currently accepting connections', REFUSED, "ALLOW_CONNECTIONS"),
        ("FATAL:  must be superuser or replication role to start walsender", REFUSED, "REPLICATION"),  # 15
        ("FATAL:  permission denied to start WAL sender", REFUSED, "REPLICATION"),  # 18
        ('FATAL:  permission denied for database "d"', REFUSED, "GRANT CONNECT"),
        ("FATAL:  unsupported startup parameter: replication", CONFIG, "pooler"),
        ("SSL error: certificate verify failed", REFUSED, "ssl"),
        ('server certificate for "a" does not match host name "b"', REFUSED, "certificate"),
        ("server does not support SSL, but SSL was required", REFUSED, "ssl"),
        ("", WAIT, "check"),
    ],
)
def test_b18_b20_a_refused_connection_is_classified_by_its_text(text: str, kind: type[CdcError], hint: str) -> None:
    error = refusal(text and f'connection to server at "127.0.0.1", port 5432 failed: {text}\n')
    assert type(error) is kind
    assert hint in error.hint


def _attempts(*texts: str) -> str:
    failures = "\n".join(f"- host: 'h{n}', port: '1', hostaddr: 'h{n}': {text}" for n, text in enumerate(texts))
    return f"{texts[-1]}\nMultiple connection attempts failed. All failures were:\n{failures}"


def test_b14_of_several_hosts_one_that_may_come_back_is_waited_for_and_all_are_told() -> None:
    password, away, standby = (
        'password authentication failed for user "u"',
        "connection refused",
        "session is read-only",
    )
    for texts in ((away, standby), (standby, away), (password, standby), (standby, password)):
        error = refusal(_attempts(*texts), several_hosts=True)
        assert type(error) is PostgresUnavailable
        assert all(text in error.message for text in texts)
    assert type(refusal(_attempts(password, password), several_hosts=True)) is PostgresRefused


def test_b20_of_one_host_with_several_addresses_the_last_answer_counts() -> None:
    texts = ("connection refused", 'password authentication failed for user "u"')
    error = refusal(_attempts(*texts), several_hosts=False)
    assert type(error) is PostgresRefused
    assert "Multiple" not in error.message


MB = 1024 * 1024


def _health(
    wal_status: str | None = "reserved",
    safe: int | None = None,
    limit: int | None = None,
    invalidation: str | None = None,
) -> Health:
    return Health(
        plugin="pgoutput",
        database="shop",
        here=True,
        confirmed=LSN.parse("0/10"),
        wal_status=wal_status,
        safe_bytes=safe,
        retained_bytes=70 * MB,
        limit_bytes=limit,
        invalidation=invalidation,
        failover=False,
        temporary=False,
        two_phase=False,
        pid=None,
        sync_state=None,
        away=None,
    )


@pytest.mark.parametrize(
    ("health", "state"),
    [
        (_health(), None),
        (_health(limit=100 * MB, safe=20 * MB), None),
        (_health(limit=100 * MB, safe=19 * MB), "near"),
        (_health("extended"), "extended"),
        (_health("extended", limit=100 * MB, safe=60 * MB), "extended"),
        (_health("extended", limit=100 * MB, safe=1 * MB), "near"),
        (_health("unreserved", limit=100 * MB, safe=-1), "unreserved"),
    ],
)
def test_b2_a_slot_in_danger_is_told_in_time(health: Health, state: str | None) -> None:
    assert problem("s", health) is None
    found = warning("s", health)
    assert (found and found[0]) == state
    if found:
        assert "73.4 MB of WAL for replication slot 's'" in found[1]


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        (_health("lost"), "(WAL that it needed was removed): events committed after LSN 0/10"),
        (_health("lost", invalidation="wal_removed"), "(wal_removed)"),
        (_health("lost", invalidation="idle_timeout"), "(idle_timeout)"),
        (_health("reserved", invalidation="conflicting"), "(conflicting)"),
        (None, "does not exist"),
    ],
)
def test_b2_b3_a_slot_that_is_gone_is_told_with_what_to_do(health: Health | None, reason: str) -> None:
    found = problem("s", health)
    assert found
    assert "replication slot 's'" in found[0]
    assert reason in found[0]
    assert found[1].endswith("run: cdc-publisher recover")


class Ended:
    """A connection that the server ends in the middle of a query."""

    def execute(self, *_: object) -> None:
        raise psycopg.errors.AdminShutdown("terminating connection due to administrator command")


def test_b17_a_shutdown_is_recognised_whether_a_query_told_it_in_our_words_or_not() -> None:
    with pytest.raises(PostgresUnavailable) as told:
        query(Ended(), "reading the slot", "select")  # type: ignore[arg-type]
    assert tells_of_shutdown(told.value)
    assert tells_of_shutdown(psycopg.errors.CrashShutdown())
    assert not tells_of_shutdown(psycopg.errors.UndefinedTable())


@pytest.mark.parametrize(("version", "fix"), [(180000, "TWO_PHASE false"), (170000, "slot drop")])
def test_case_c6_a_slot_of_prepared_transactions_is_unfit_and_the_fix_depends_on_the_version(
    version: int, fix: str
) -> None:
    assert unfit("s", _health(), version) is None
    found = unfit("s", replace(_health(), two_phase=True), version)
    assert found
    assert "two_phase" in found.problem
    assert fix in found.fix[0]


def test_case_c6_a_temporary_slot_is_unfit() -> None:
    found = unfit("s", replace(_health(), temporary=True, pid=7), 180000)
    assert found
    assert "pg_terminate_backend(7)" in found.fix[0]

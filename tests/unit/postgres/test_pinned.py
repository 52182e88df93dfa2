"""What a connection does not leave to the DSN, the environment, roles and databases."""

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.errors import PostgresUnavailable
from cdc.postgres.connection import connect
from cdc.postgres.session import PostgresSession


def pinned(limits: dict[str, float]) -> str:
    """The statement that pins a session's settings."""
    sent: list[bytes] = []
    info = SimpleNamespace(server_version=180000, backend_pid=1)
    PostgresSession.pin(SimpleNamespace(info=info, command=sent.append), limits)  # type: ignore[arg-type]
    return sent[0].decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("bytea_output", "hex"),
        ("extra_float_digits", "1"),
    ],
)
def test_case_c2_the_text_of_values_is_the_same_in_every_session(name: str, value: str) -> None:
    assert f"set_config('{name}', '{value}', " in pinned({})


def test_case_b3_a_row_that_a_policy_hides_is_an_error() -> None:
    assert "set_config('row_security', 'off', " in pinned({})


def test_case_c3_statements_wait_for_locks_and_results_for_a_limited_time() -> None:
    statement = pinned({"lock_timeout": 5.0, "statement_timeout": 20.0})
    assert "set_config('lock_timeout', '5000ms', " in statement
    assert "set_config('statement_timeout', '20000ms', " in statement


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of connections, none of which is opened."""
    found: list[dict[str, Any]] = []

    def refuse(text: str, **_: object) -> None:
        found.append(conninfo_to_dict(text))
        raise psycopg.OperationalError("connection failed: connection to server failed: no")

    monkeypatch.setattr(PostgresSession, "connect", refuse)
    for name in ("PGHOST", "PGHOSTADDR", "PGTARGETSESSIONATTRS"):
        monkeypatch.delenv(name, raising=False)
    return found


def parameters(asked: list[dict[str, Any]], dsn: str, **more: Any) -> dict[str, Any]:
    with pytest.raises(PostgresUnavailable):
        connect(dsn, **more)
    return asked[-1]


def test_case_c1_the_encoding_of_the_dsn_does_not_count(asked: list[dict[str, Any]]) -> None:
    assert parameters(asked, "host=h client_encoding=LATIN1")["client_encoding"] == "UTF8"


def test_case_c4_of_several_hosts_the_primary_is_taken_unless_the_dsn_asks_for_another(
    asked: list[dict[str, Any]],
) -> None:
    assert parameters(asked, "host=h1,h2")["target_session_attrs"] == "primary"
    assert parameters(asked, "host=h1,h2 target_session_attrs=any")["target_session_attrs"] == "any"
    assert "target_session_attrs" not in parameters(asked, "host=h")


def test_case_c5_each_connection_has_the_mode_that_it_needs(asked: list[dict[str, Any]]) -> None:
    assert "replication" not in parameters(asked, "host=h replication=database")
    assert parameters(asked, "host=h replication=true", replication="database")["replication"] == "database"

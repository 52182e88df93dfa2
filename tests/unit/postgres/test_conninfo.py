"""What libpq says of a connection string before it connects is found without a server."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.errors import ConfigError
from cdc.postgres.connection import refusal, validate
from cdc.postgres.conninfo import problem_of, said_before_connecting


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=h port=notaport",
        "postgresql://u@h:notaport/db",
        "host=h port=99999",
        "host=h1,h2 port=1,x",
        "host=h1,h2 port=1,2,3",
        "host=h hostaddr=127.0.0.1,127.0.0.2",
        "hostaddr=h",
        f"host={'h' * 300}",
        "host=a..b",
        "host=h sslmode=bogus",
        "host=h require_auth=bogus",
        "host=h channel_binding=bogus",
        "host=h gssencmode=bogus",
        "host=h target_session_attrs=bogus",
        "host=h load_balance_hosts=bogus",
        "host=h sslcertmode=bogus",
        "host=h sslrootcert=system sslmode=require",
        "host=h ssl_min_protocol_version=TLSv9",
        "host=h min_protocol_version=9",
        "host=h connect_timeout=soon",
        "host=h keepalives_idle=x",
        "host=h tcp_user_timeout=x",
        "service=unknown",
    ],
)
def test_case_h10_a_connection_string_that_libpq_refuses_is_configuration(dsn: str) -> None:
    with pytest.raises(ConfigError, match=r"\[postgres\] dsn: ") as raised:
        validate(dsn)
    assert raised.value.hint


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "host=h",
        "host=h1,h2",
        "host=h1,h2 port=1,2",
        "host=h1,h2 hostaddr=127.0.0.1,::1 port=5432",
        "hostaddr=127.0.0.1",
        "host=/var/run/postgresql port=5433",
        "host=@abstract",
        "host=h sslmode=verify-full sslrootcert=/elsewhere connect_timeout=5 keepalives=1",
        "host=datenbank.müller.example",
        "postgresql:///db?replication=database",
        "host=h replication=maybe",
    ],
)
def test_case_h10_a_sound_connection_string_passes_without_a_server(dsn: str) -> None:
    validate(dsn)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PGPORT", "x"), ("PGSSLMODE", "bogus"), ("PGSERVICE", "unknown"), ("PGCONNECT_TIMEOUT", "soon")],
)
def test_case_h10_the_environment_of_libpq_is_judged_as_well(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert problem_of(conninfo_to_dict("host=h"))


def test_case_h10_a_service_may_have_several_hosts_and_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    file = f"{tmp_path}/services"
    with open(file, "w") as written:
        written.write("[shop]\nhost=h1,h2\nport=1,2\n")
    monkeypatch.setenv("PGSERVICEFILE", file)
    validate("service=shop")
    validate("service=shop user=u")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('connection is bad: invalid sslmode value: "x"', 'invalid sslmode value: "x"'),
        ('connection is bad: could not translate host name "h" to address: Name or service not known', ""),
        ('connection is bad: connection to server on socket "/x/.s.PGSQL.5432" failed: No such file or directory', ""),
        ('connection failed: connection to server at "127.0.0.1", port 1 failed: FATAL: no', ""),
        ("connection timeout expired", ""),
        ("", ""),
    ],
)
def test_case_h10_an_error_before_the_connection_is_told_from_one_of_the_connection(text: str, reason: str) -> None:
    assert said_before_connecting(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        'FATAL:  invalid value for parameter "TimeZone": "Mars"',
        'FATAL:  unrecognized configuration parameter "foo"',
        'FATAL:  parameter "shared_buffers" cannot be changed without restarting the server',
        'FATAL:  parameter "geqo" requires a Boolean value',
        'FATAL:  permission denied to set parameter "lc_messages"',
        "FATAL:  -c foo requires a value",
        'FATAL:  99 ms is outside the valid range for parameter "lock_timeout" (0 ms .. 1 ms)',
        "FATAL:  invalid command-line argument for server process: x",
        'authentication method requirement "scram-sha-256" failed: server did not complete authentication',
        "channel binding required, but server authenticated client without channel binding",
    ],
)
def test_case_h10_what_a_server_refuses_of_the_start_up_packet_is_configuration(text: str) -> None:
    error = refusal(f'connection failed: connection to server at "127.0.0.1", port 5432 failed: {text}\n')
    assert type(error) is ConfigError
    assert error.exit_code == 78
    assert error.hint

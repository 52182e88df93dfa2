"""PostgreSQL by TLS, SCRAM and client certificates: what works, and what each refusal says."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from cdc.config.loading import load
from cdc.errors import PostgresRefused
from cdc.postgres.connection import connect
from cdc.postgres.source import Source
from tests.guarded import GuardedPostgres, a_guarded_postgres
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.servers import Servers
from tests.tls import Authority

PASSWORD = "zwit'schern trill"


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedPostgres]:
    with a_guarded_postgres() as found:
        found.role("publisher", PASSWORD)
        found.role("mutual")
        yield found


def told(dsn: str, password: str | None = PASSWORD) -> str:
    """The one line that a refused connection ends with, in which no secret is."""
    given = {"CDC_POSTGRES__DSN": dsn, **({"CDC_POSTGRES__PASSWORD": password} if password else {})}
    with pytest.raises(PostgresRefused) as caught:
        connect(load(environ=given).postgres.dsn)
    line = str(caught.value)
    assert "\n" not in line
    assert "trill" not in line
    assert caught.value.exit_code == 1
    assert caught.value.hint
    return line


def test_scram_over_tls_with_everything_checked_works_for_queries_and_for_the_stream(guarded: GuardedPostgres) -> None:
    dsn = guarded.dsn("publisher", channel_binding="require")
    settings = load(environ={"CDC_POSTGRES__DSN": dsn, "CDC_POSTGRES__PASSWORD": PASSWORD})
    with connect(settings.postgres.dsn) as connection:
        rows = connection.execute("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()").fetchall()
        assert rows == [(True, "TLSv1.3")]
    source = Source(settings.postgres.dsn)
    assert source.identify()
    source.close()


def test_what_libpq_finds_by_itself_still_counts(
    guarded: GuardedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = guarded.server.port
    passwords, services = tmp_path / "pgpass", tmp_path / "services"
    passwords.write_text(f"127.0.0.1:{port}:shop:publisher:{PASSWORD}\n")
    passwords.chmod(0o600)
    services.write_text(f"[orders]\nhost=127.0.0.1\nport={port}\ndbname=shop\nuser=publisher\nsslmode=require\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    connect(load(environ={"CDC_POSTGRES__DSN": "service=orders"}).postgres.dsn).close()
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    connect(
        load(environ={"CDC_POSTGRES__DSN": "service=orders", "CDC_POSTGRES__PASSWORD": PASSWORD}).postgres.dsn
    ).close()


@pytest.mark.parametrize("key_password", [None, "tschilp kolk"])
def test_a_certificate_of_ours_takes_the_place_of_a_password(
    guarded: GuardedPostgres, key_password: str | None
) -> None:
    issued = guarded.authority.issue("mutual", password=key_password)
    dsn = guarded.dsn("mutual", sslcert=str(issued.certificate), sslkey=str(issued.key))
    with connect(f"{dsn}&sslpassword={quote(key_password)}" if key_password else dsn) as connection:
        assert connection.execute("select current_user").fetchall() == [("mutual",)]


def test_a_certificate_of_nobody_or_of_another_authority_is_refused(guarded: GuardedPostgres, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("mutual")
    without = told(guarded.dsn("mutual"), None)
    assert "connection requires a valid client certificate" in without
    assert "sslcert and sslkey" in without
    foreign = told(guarded.dsn("mutual", sslcert=str(stranger.certificate), sslkey=str(stranger.key)), None)
    assert "alert unknown ca" in foreign
    assert "set sslcert and sslkey in [postgres] dsn to a certificate that the server trusts" in foreign


def test_another_authority_an_unknown_host_and_no_file_are_told_apart(guarded: GuardedPostgres, tmp_path: Path) -> None:
    other = told(guarded.dsn("publisher", sslrootcert=str(Authority(tmp_path, "other").file)))
    assert "certificate verify failed" in other
    assert "set sslrootcert in [postgres] dsn to the server's authority" in other
    named = told(guarded.dsn("publisher").replace("127.0.0.1", "localhost"))
    assert 'does not match host name "localhost"' in named
    assert "set host in [postgres] dsn to a name that is in the server's certificate" in named
    missing = told(guarded.dsn("publisher", sslrootcert=str(tmp_path / "none.pem")))
    assert f'root certificate file "{tmp_path}/none.pem" does not exist' in missing


def test_an_expired_certificate_of_the_server_is_refused_until_it_is_renewed(guarded: GuardedPostgres) -> None:
    guarded.show(guarded.authority.issue("server", expired=True))
    try:
        line = told(guarded.dsn("publisher"))
        assert "certificate verify failed" in line
        assert "or renew the server's certificate if it expired" in line
    finally:
        guarded.show(guarded.authority.issue("server"))
    connect(f"{guarded.dsn('publisher')}&password={quote(PASSWORD)}").close()


def test_a_wrong_and_a_missing_password_and_no_encryption_say_what_to_do(guarded: GuardedPostgres) -> None:
    wrong = told(guarded.dsn("publisher"), f"{PASSWORD}!")
    assert 'password authentication failed for user "publisher"' in wrong
    assert "check the user and the password in [postgres] dsn, or [postgres] password" in wrong
    missing = told(guarded.dsn("publisher"), None)
    assert "no password supplied" in missing
    assert "CDC_POSTGRES__PASSWORD_FILE" in missing
    plain = told(guarded.dsn("publisher", sslmode="disable"))
    assert "pg_hba.conf" in plain
    assert "set sslmode=verify-full" in plain


@pytest.fixture
def pipeline(
    guarded: GuardedPostgres, servers: Servers, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """A pipeline whose program knows the server by its certificate, and has its password from a file."""
    made = prepare(
        make_pipeline(f"{guarded.server.dsn.removesuffix('postgres')}shop", servers.kafka, topic_prefix, tmp_path)
    )
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("CDC_POSTGRES__PASSWORD_FILE", str(tmp_path / "password"))
    made.settings["postgres"]["dsn"] = guarded.dsn("publisher")
    yield made
    made.close()


def test_the_publisher_publishes_by_tls_with_its_password_from_a_file(pipeline: Pipeline, tmp_path: Path) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1, 2)
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge()) == 2
    (tmp_path / "password").write_text("wrong")
    refused = pipeline.start()
    assert refused.wait() == 1
    assert "password authentication failed" in refused.messages()[-1]
    assert all(word not in line for line in refused.messages() for word in ("zwit", "trill", "wrong"))

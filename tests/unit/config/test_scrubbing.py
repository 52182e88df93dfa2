"""Secrets of the settings are scrubbed from any text (B23)."""

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.cli.main import run
from cdc.config.masking import MASK, SHORTEST, is_ambiguous, scrubber, secrets
from tests.unit.config.test_secrets import quoted

NASTY = "p@s:s/w'o%r\\d $x\""  # everything that any notation quotes
POSTGRES = {
    "url": f"postgresql://u:{quote(NASTY, safe='')}@h:5432/db",
    "url of many hosts": f"postgres://u:{quote(NASTY, safe='')}@h1:1,h2:2/db?target_session_attrs=read-write",
    "parameter": f"postgresql://h/db?user=u&password={quote(NASTY, safe='')}",
    "parameter sslpassword": f"postgresql://u@h/db?sslpassword={quote(NASTY, safe='')}&sslmode=require",
    "pairs": f"host=h password={quoted(NASTY)} dbname=db",
    "pairs without blanks": f"password={quoted(NASTY)}host=h",
    "pairs, escaped": "host=h password=" + "".join(f"\\{c}" for c in NASTY),
}


def forms(secret: str) -> list[str]:
    """How a secret may be found in an output."""
    return [
        *(secret, " ".join(secret.split()), json.dumps(secret)[1:-1], repr(secret)[1:-1], quoted(secret)[1:-1]),
        *(quote(secret), quote(secret, safe=""), quote_plus(secret), quote(secret, safe="").lower()),
        *(json.dumps(json.dumps(secret))[3:-3], repr(repr(secret)[1:-1])[1:-1], repr(secret.encode())[2:-1]),
    ]


@pytest.mark.parametrize("dsn", POSTGRES.values(), ids=POSTGRES)
def test_the_password_of_a_connection_string_is_scrubbed_in_every_form_b23(dsn: str) -> None:
    scrub = scrubber(secrets({"postgres": {"dsn": dsn}}))
    for form in forms(NASTY):
        assert scrub(f"<{form}>") == f"<{MASK}>"
    assert NASTY not in scrub(dsn)


TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: ("kafka", {name: NASTY}) for name in ("sasl.password", "ssl.key.password", "ssl.keystore.password")},
    "client secret": ("kafka", {"sasl.oauthbearer.client.secret": NASTY}),
    "passphrase": ("kafka", {"sasl.oauthbearer.assertion.private.key.passphrase": NASTY}),
    "registry's password": ("schema_registry", {"username": "u", "password": NASTY}),
    "registry's token": ("schema_registry", {"token": NASTY}),
    "registry's key": ("schema_registry", {"ssl_key_password": NASTY}),
    "registry's url": ("schema_registry", {"url": f"http://u:{quote(NASTY, safe='')}@h:1,http://h2"}),
}


@pytest.mark.parametrize(("section", "table"), TABLES.values(), ids=TABLES)
def test_every_secret_setting_is_scrubbed_in_every_form_b23(section: str, table: dict[str, Any]) -> None:
    scrub = scrubber(secrets({section: table}))
    for form in forms(NASTY):
        assert scrub(f"<{form}>") == f"<{MASK}>"


def test_the_header_of_basic_authentication_is_scrubbed_b23() -> None:
    for table in ({"username": "u", "password": "hunter2"}, {"url": "http://u:hunter2@h"}):
        assert scrubber(secrets({"schema_registry": table}))("Basic dTpodW50ZXIy") == f"Basic {MASK}"


def test_a_line_of_a_key_is_scrubbed_b23() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n-----END PRIVATE KEY-----"
    scrub = scrubber(secrets({"kafka": {"ssl.key.pem": key}}))
    assert scrub("bad line: MIIEvQIBADANBgkqhkiG9w0BAQ") == f"bad line: {MASK}"
    assert scrub("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_text_without_secrets_is_unchanged() -> None:
    table = {"bootstrap.servers": "h:9092", "sasl.username": "user", "sasl.oauthbearer.token.endpoint.url": "https://h"}
    known = secrets({"kafka": table, "postgres": {"dsn": "postgresql://user@h/db?sslmode=require", "slot": "slot"}})
    text = "h:9092 user https://h postgresql://user@h/db?sslmode=require slot"
    assert scrubber(known)(text) == text


def test_a_very_short_secret_is_not_scrubbed() -> None:
    assert SHORTEST == 4
    assert scrubber(["a", "", "cdc"])("a cdc") == "a cdc"


def test_of_two_overlapping_secrets_the_longer_is_scrubbed_in_full() -> None:
    assert scrubber(["hunter", "hunter2"])("hunter2") == MASK


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8))
def test_any_secret_is_scrubbed_from_any_setting_b23(password: str) -> None:
    for table in (
        {"postgres": {"dsn": f"postgresql://u:{quote(password, safe='')}@h/db"}},
        {"postgres": {"dsn": f"host=h password={quoted(password)} dbname=db"}},
        {"kafka": {"sasl.password": password}},
    ):
        scrub = scrubber(secrets(table))
        for form in (password, json.dumps(password)[1:-1], quote(password, safe="")):
            assert form not in scrub(f"<{form}>")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:hun@ter2@h/db",
        "postgresql://u:hun/ter2@h/db",
        "postgresql://u:hunter2@@h:5432/db",
        "postgres://u:/hunter2@h1:1,h2:2/db",
        "postgresql://h?password=hunter@2",
        "postgresql://h:1?password=hunter@2",
        "postgresql://u:hunter?2@h",
    ],
)
def test_a_password_that_libpq_would_read_as_a_host_is_refused_unseen_b23(
    dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_ambiguous(dsn)
    assert run(["-v", "--set", f"postgres.dsn={dsn}", "config", "validate"]) == 78
    captured = capsys.readouterr()
    assert "%40" in captured.err
    assert not [part for part in ("hun", "ter2", "hunter") if part in captured.out + captured.err]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://",
        "postgresql://h",
        "postgresql:///db?host=/var/run/postgresql",
        "postgresql://u@h/db?password=hunter@2",
        "postgresql://u:p%40ss@h1:1,h2:2/db?sslmode=require",
        "postgresql://u:a:b#c@h",
        "postgresql://?host=/var/run/postgresql",
        "postgresql://[::1]:5432/db",
        "postgresql://%2Fvar%2Frun/db",
        "host=h password=p@ss/word",
    ],
)
def test_a_url_that_libpq_reads_as_intended_is_accepted(dsn: str) -> None:
    assert not is_ambiguous(dsn)

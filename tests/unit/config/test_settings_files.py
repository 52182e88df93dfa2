"""Settings from files named by variables, and [postgres] password."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from cdc.cli.main import run
from cdc.config import loading
from cdc.config.files import LARGEST
from cdc.config.masking import MASK, scrubber, secrets
from cdc.config.passwords import with_password
from cdc.config.settings import Settings
from cdc.errors import ConfigError

SECRET = "zwit'schern \\trill"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ./cdc-publisher.toml but the test's own."""
    monkeypatch.chdir(tmp_path)


def load(**environ: str) -> Settings:
    return loading.load(None, (), environ)


def problem(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**environ)
    (reported,) = caught.value.problems
    assert caught.value.exit_code == 78
    return reported


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return str(path)


def test_any_setting_can_come_from_a_file_named_by_a_variable(file: str, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://u@h/db\r\n")
    (tmp_path / "list").write_text("a,b")
    settings = load(
        CDC_POSTGRES__DSN_FILE=str(tmp_path / "dsn"),
        CDC_POSTGRES__PASSWORD_FILE=file,
        CDC_KAFKA__SASL_PASSWORD_FILE=file,
        CDC_SCHEMA_REGISTRY__USERNAME="u",
        CDC_SCHEMA_REGISTRY__PASSWORD_FILE=file,
        CDC_OUTBOX__HEADERS_FILE=str(tmp_path / "list"),
        CDC_OUTBOX__COLUMNS__KEY_FILE=file,
    )
    assert conninfo_to_dict(settings.postgres.dsn) == {"user": "u", "host": "h", "dbname": "db", "password": SECRET}
    assert settings.postgres.password == settings.schema_registry.password == settings.outbox.columns.key == SECRET
    assert settings.kafka == {"sasl.password": SECRET}
    assert settings.outbox.headers == ["a", "b"]


def test_inner_blanks_and_newlines_of_a_file_are_kept(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(" a\nb \n\n")
    assert load(CDC_KAFKA__SSL_KEY_PEM_FILE="./key.pem").kafka["ssl.key.pem"] == " a\nb "


def test_an_empty_file_variable_is_unset() -> None:
    assert load(CDC_POSTGRES__DSN_FILE="") == Settings()


def test_a_librdkafka_property_that_names_a_file_is_kept_unchanged() -> None:
    name = "sasl.oauthbearer.assertion.private.key.file"
    assert load(CDC_KAFKA__SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE="/key").kafka == {name: "/key"}


def test_a_setting_and_its_file_together_are_an_error(file: str) -> None:
    reported = problem(CDC_KAFKA__SASL_PASSWORD="trill", CDC_KAFKA__SASL_PASSWORD_FILE=file)
    assert reported == "CDC_KAFKA__SASL_PASSWORD_FILE and CDC_KAFKA__SASL_PASSWORD are both set: set only one of them"


@pytest.mark.parametrize("name", ["AVRO__SCHEMAS", "SCHEMA_REGISTRY__SSL_CA", "SCHEMA_REGISTRY__SSL_KEY"])
def test_a_setting_that_names_a_file_cannot_come_from_a_file(name: str, file: str) -> None:
    reported = problem(**{f"CDC_{name}_FILE": file})
    assert reported == f"CDC_{name}_FILE is not a setting: CDC_{name} already takes a file name"


def test_an_unknown_setting_from_a_file_is_reported_without_its_content(file: str) -> None:
    assert problem(CDC_POSTGRES__PASWORD_FILE=file) == (
        "CDC_POSTGRES__PASWORD_FILE: [postgres] pasword: unknown setting; did you mean 'password'?"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\xff\xfe", "not valid UTF-8"),
        (b"x" * (LARGEST + 1), f"larger than {LARGEST} bytes, the limit for a setting"),
    ],
)
def test_an_invalid_file_is_reported_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert problem(CDC_POSTGRES__PASSWORD_FILE=str(path)) == f"CDC_POSTGRES__PASSWORD_FILE: file {path}: {reason}"


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    assert problem(CDC_POSTGRES__DSN_FILE=f"{tmp_path}/none").endswith(
        f"file {tmp_path}/none: No such file or directory"
    )
    assert problem(CDC_POSTGRES__DSN_FILE=str(tmp_path)).endswith(f"file {tmp_path}: Is a directory")


@pytest.mark.parametrize(
    "value", ["zwitschern", "postgresql://u:zwitschern@h/db", "-----BEGIN\n/zwitschern", "zwit/schern"]
)
def test_a_secret_in_place_of_a_file_name_is_not_shown(value: str) -> None:
    reported = problem(CDC_POSTGRES__DSN_FILE=value)
    assert "CDC_POSTGRES__DSN_FILE" in reported
    assert "No such file" in reported
    assert "zwit" not in reported


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u@h",
        "postgresql://u@h/db",
        "postgres://u@h:1,h2:2/db?sslmode=require",
        "postgresql:///db?host=/run&password=",
        "host=h dbname=db",
        "host=h dbname='d b' password=''",
        "service=orders",
    ],
)
@given(password=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_libpq_reads_any_password_unchanged(dsn: str, password: str) -> None:
    merged = with_password(dsn, password)
    assert conninfo_to_dict(merged) == {**conninfo_to_dict(dsn), "password": password}
    assert with_password(merged, password) == merged
    assert password in secrets({"postgres": {"dsn": merged}})


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:one@h/db", "postgresql://h?password=one", "host=h password=one", "password = 'o ne'"]
)
def test_two_passwords_are_an_error_that_shows_neither(dsn: str) -> None:
    reported = problem(CDC_POSTGRES__DSN=dsn, CDC_POSTGRES__PASSWORD="other")
    assert reported.endswith("[postgres]: dsn and password contain different passwords: remove one of them")


def test_a_password_with_a_nul_byte_is_an_error() -> None:
    assert "a password cannot contain a NUL byte" in problem(CDC_POSTGRES__DSN="host=h", CDC_POSTGRES__PASSWORD="a\0b")


def test_a_password_without_dsn_is_not_a_connection_string() -> None:
    assert load(CDC_POSTGRES__PASSWORD="x").postgres.dsn == ""


def test_settings_from_files_are_masked_and_the_output_is_valid_settings(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CDC_POSTGRES__DSN", "postgresql://u@h/db")
    monkeypatch.setenv("CDC_POSTGRES__PASSWORD_FILE", file)
    assert run(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["postgres"]
    assert (shown["dsn"], shown["password"]) == (f"postgresql://u@h/db?password={MASK}", MASK)
    assert run(["config", "show"]) == 0
    (tmp_path / "shown.toml").write_text(capsys.readouterr().out)
    assert loading.load(tmp_path / "shown.toml", (), {}).postgres.password == MASK


def test_a_secret_from_a_file_is_scrubbed_in_every_notation(file: str) -> None:
    settings = load(CDC_POSTGRES__DSN="host=h", CDC_POSTGRES__PASSWORD_FILE=file, CDC_KAFKA__SASL_PASSWORD_FILE=file)
    scrub = scrubber(secrets(settings.model_dump()))
    for text in (SECRET, settings.postgres.dsn, repr(settings), settings.model_dump_json()):
        assert "trill" not in scrub(text)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xef\xbb\xbf[postgres]\n", "a UTF-8 byte order mark .* save the file as UTF-8 without it"),
        ("[postgres]\n".encode("utf-16"), "not valid UTF-8"),
    ],
)
def test_case_h15_a_settings_file_that_is_no_plain_utf_8_is_told_as_such(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "shop.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"settings file {file}: {reason}"):
        loading.load(file, (), {})

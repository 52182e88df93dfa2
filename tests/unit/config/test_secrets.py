"""No secret reaches any output (B23, I11)."""

import json
import tomllib
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.cli.main import run
from cdc.config.masking import MASK, mask_dsn, masked

CANARIES = [
    "hunter2",
    "p@ss@word",
    "a:b:c",
    "a/b/c",
    "it's",
    "50%",
    "back\\slash",
    "two words",
    "a&b=c",
    "#?",
    "@",
    "'",
]


def quoted(password: str) -> str:
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@pytest.mark.parametrize("password", CANARIES)
@pytest.mark.parametrize(
    "template",
    ["postgresql://u:{}@h:5432/db", "postgres://u:{}@h/db?sslmode=require", "postgresql://u:{}@h1:1,h2:2/db"],
)
def test_the_password_of_a_url_is_masked_quoted_or_not(template: str, password: str) -> None:
    for written in (password, quote(password, safe="")):
        shown = mask_dsn(template.format(written))
        assert shown == template.format(MASK)


@pytest.mark.parametrize("password", [canary for canary in CANARIES if "&" not in canary and "@" not in canary])
@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_a_password_among_the_parameters_of_a_url_is_masked(name: str, password: str) -> None:
    shown = mask_dsn(f"postgresql://u@h/db?{name}={password}&sslmode=require")
    assert shown == f"postgresql://u@h/db?{name}={MASK}&sslmode=require"


@pytest.mark.parametrize("host", ["h", "h:5432", "u@h"])
def test_a_password_with_an_at_sign_among_the_parameters_of_a_url_is_masked(host: str) -> None:
    # libpq looks for the user's @ before the first / only: this is a password with an @ in it.
    shown = mask_dsn(f"postgresql://{host}/db?password=hunter@2secret&sslmode=require")
    assert "hunter" not in shown
    assert "2secret" not in shown


@pytest.mark.parametrize("password", CANARIES)
@pytest.mark.parametrize("template", ["host=h password={} dbname=db", "password = {}", "sslpassword={} host=h"])
def test_the_quoted_password_of_a_keyword_string_is_masked(template: str, password: str) -> None:
    assert mask_dsn(template.format(quoted(password))) == template.format(MASK)


@pytest.mark.parametrize("password", [canary for canary in CANARIES if not set(canary) & set(" \\'")])
def test_the_unquoted_password_of_a_keyword_string_is_masked(password: str) -> None:
    assert mask_dsn(f"host=h password={password} dbname=db") == f"host=h password={MASK} dbname=db"


@pytest.mark.parametrize(
    "dsn",
    [
        "host=h password=two secret dbname=db",  # should have been quoted
        "host=h password='it''s secret' dbname=db",  # quoted as in SQL
        "host=h Password=secret",
        "host=h PASSWORD = secret",
        "postgresql+psycopg://u:secret@h/db",  # as SQLAlchemy writes it
        "Postgresql://u:secret@h/db",
        "u:secret@h/db",
        "postgresql://u:two@h/db?password=secret@x",
    ],
)
def test_no_part_of_a_password_in_an_unparsable_string_is_shown(dsn: str) -> None:
    assert "secret" not in mask_dsn(dsn)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_quoted_password_is_masked(password: str) -> None:
    assert mask_dsn(f"host=h password={quoted(password)} dbname=db") == f"host=h password={MASK} dbname=db"
    assert mask_dsn(f"postgresql://u:{quote(password, safe='')}@h/db") == f"postgresql://u:{MASK}@h/db"


@pytest.mark.parametrize("dsn", ["", "host=h dbname=db", "postgresql://h/db", "postgresql://u@h/db", "service=x"])
def test_a_connection_string_without_password_is_shown_unchanged(dsn: str) -> None:
    assert mask_dsn(dsn) == dsn


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.jaas.config",
        "sasl.oauthbearer.config",
    ],
)
def test_a_secret_property_is_masked(name: str) -> None:
    assert masked(name, "hunter2") == MASK
    assert masked(name, "") == ""


def test_any_setting_ending_in_url_is_shown_without_its_password() -> None:
    assert masked("sasl.oauthbearer.token.endpoint.url", "https://u:hunter2@h/token") == f"https://u:{MASK}@h/token"


@pytest.mark.parametrize("name", ["bootstrap.servers", "sasl.username", "ssl.ca.location", "linger.ms", "slot"])
def test_other_settings_are_shown(name: str) -> None:
    assert masked(name, "value") == "value"


SECRETS = """
[postgres]
dsn = "postgresql://u:hunter2@h/db?sslpassword=hunter2"
[kafka]
"bootstrap.servers" = "h:1"
sasl.password = "hunter2"
ssl.key.pem = "hunter2"
[outbox]
headers = ["a", "b"]
[topics]
config = {"retention.ms" = 5, "cleanup.policy" = "compact"}
"""


@pytest.fixture
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cdc-publisher.toml").write_text(SECRETS)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_settings")
def test_config_show_prints_a_settings_file_with_secrets_masked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show"]) == 0
    out = capsys.readouterr().out
    shown = tomllib.loads(out)
    assert "hunter2" not in out
    assert shown["postgres"]["dsn"] == f"postgresql://u:{MASK}@h/db?sslpassword={MASK}"
    assert shown["kafka"] == {"bootstrap.servers": "h:1", "sasl.password": MASK, "ssl.key.pem": MASK}
    assert shown["outbox"]["headers"] == ["a", "b"]
    assert shown["topics"]["config"] == {"retention.ms": 5, "cleanup.policy": "compact"}


@pytest.mark.usefixtures("_settings")
def test_config_show_prints_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show"]) == 0
    toml = tomllib.loads(capsys.readouterr().out)
    assert run(["config", "show", "--json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    for section, table in as_json.items():
        assert {name: value for name, value in table.items() if value is not None} == toml[section]


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("value", ['quote"d', "back\\slash", "tab\t", "é😀", "line\nbreak", "del\x7f"])
def test_config_show_prints_valid_toml_for_any_value(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--set", f"kafka.client.id={value}", "config", "show"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["kafka"]["client.id"] == value


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("arguments", [["config", "show"], ["-v", "config", "validate"]])
@pytest.mark.parametrize(
    "option",
    ["dsn=postgresql://u:hunter2@h/db", "postgres.dsn:postgresql://u:hunter2@h/db", "kafka.sasl.password:hunter2"],
)
def test_a_malformed_option_is_reported_without_its_value(
    option: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--set", option, *arguments]) == 78
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err


@pytest.mark.usefixtures("_settings")
def test_invalid_settings_exit_with_78_and_one_line_per_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--set", "postgres.slto=x", "--set", "topics.nam=x", "config", "show"]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("cdc-publisher: --set ") for line in lines)


@pytest.mark.usefixtures("_settings")
def test_config_validate_reports_problems_of_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--set", "postgres.dsn=", "config", "validate"]) == 78
    err = capsys.readouterr().err
    assert "[postgres] dsn is required" in err
    assert "schemas is not a folder" in err


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err

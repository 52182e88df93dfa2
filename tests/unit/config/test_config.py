"""Sources of settings, their precedence, and errors in them."""

import json
from pathlib import Path

import pytest

from cdc.config import loading
from cdc.config.settings import Settings, require
from cdc.errors import ConfigError

DSN, SLOT = "CDC_POSTGRES__DSN", "CDC_POSTGRES__SLOT"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ./cdc-publisher.toml but the test's own."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def load(file: Path | None = None, *options: str, **environ: str) -> Settings:
    return loading.load(file, options, environ)


def problems(file: Path | None = None, *options: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(file, *options, **environ)
    assert caught.value.exit_code == 78
    return caught.value.problems


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_apply_without_any_source() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.outbox.qualified_name == ("public", "outbox")
    assert settings.topics.name == "outbox.event.{aggregatetype}"
    assert (settings.delivery.guarantee, settings.delivery.on_poison) == ("at-least-once", "stop")


def test_options_override_environment_overrides_file_overrides_defaults(tmp_path: Path) -> None:
    file = write(tmp_path / "f.toml", '[postgres]\nslot = "file"\npublication = "file"\ndsn = "file"')
    settings = load(file, "postgres.slot=option", CDC_POSTGRES__SLOT="env", CDC_POSTGRES__PUBLICATION="env")
    assert (settings.postgres.slot, settings.postgres.publication, settings.postgres.dsn) == ("option", "env", "file")
    assert settings.outbox == Settings().outbox


def test_the_last_of_two_options_applies() -> None:
    assert load(None, "postgres.slot=a", "postgres.slot=b").postgres.slot == "b"


def test_an_empty_variable_is_unset(tmp_path: Path) -> None:
    assert load(write(tmp_path / "f.toml", '[postgres]\nslot = "file"'), **{SLOT: ""}).postgres.slot == "file"


def test_variables_without_the_prefix_or_for_tests_are_ignored() -> None:
    assert load(None, CDCX="1", PATH="/bin", CDC_TEST_KAFKA="127.0.0.1:1") == Settings()


def test_the_file_in_the_working_directory_is_read_unless_config_names_another(tmp_path: Path) -> None:
    write(Path("cdc-publisher.toml"), '[postgres]\nslot = "here"')
    assert load().postgres.slot == "here"
    assert load(write(tmp_path / "f.toml", "")).postgres.slot == "cdc_publisher"


def test_a_relative_path_in_a_file_is_relative_to_that_file(tmp_path: Path) -> None:
    file = write(tmp_path / "f.toml", '[avro]\nschemas = "contracts/avro"')
    assert load(file).avro.schemas == tmp_path / "contracts/avro"
    assert load(file, "avro.schemas=mine").avro.schemas == Path("mine")
    assert load(write(tmp_path / "g.toml", '[avro]\nschemas = "/abs"')).avro.schemas == Path("/abs")


@pytest.mark.parametrize(
    "text",
    [
        '[kafka]\n"bootstrap.servers" = "h:1"\n"linger.ms" = 7\n"ssl.key.password" = "x"',
        '[kafka]\nbootstrap.servers = "h:1"\nlinger.ms = 7\nssl.key.password = "x"',
        '[kafka]\nlinger.ms = 7\n[kafka.bootstrap]\nservers = "h:1"\n[kafka.ssl.key]\npassword = "x"',
    ],
)
def test_kafka_properties_may_be_quoted_dotted_or_tables(tmp_path: Path, text: str) -> None:
    kafka = load(write(tmp_path / "f.toml", text)).kafka
    assert kafka == {"bootstrap.servers": "h:1", "linger.ms": 7, "ssl.key.password": "x"}


def test_underscores_in_kafka_variables_stand_for_dots() -> None:
    kafka = load(None, "kafka.linger.ms=3", CDC_KAFKA__BOOTSTRAP_SERVERS="h:1", CDC_KAFKA__LINGER_MS="7").kafka
    assert kafka == {"bootstrap.servers": "h:1", "linger.ms": "3"}


def test_a_kafka_variable_with_more_double_underscores_is_an_error() -> None:
    (problem,) = problems(None, CDC_KAFKA__SSL__KEY_LOCATION="/key")
    assert problem.startswith("CDC_KAFKA__SSL__KEY_LOCATION")


def test_lists_and_tables_in_variables_are_json_or_separated_by_commas() -> None:
    settings = load(
        None,
        'avro.types={"a": "B"}',
        CDC_OUTBOX__HEADERS="source, tenant",
        CDC_OUTBOX__COLUMNS__KEY="entity",
        CDC_TOPICS__CONFIG='{"retention.ms": 5}',
        CDC_TOPICS__CREATE="true",
        CDC_TOPICS__PARTITIONS="6",
    )
    assert settings.outbox.headers == ["source", "tenant"]
    assert settings.outbox.columns.key == "entity"
    assert settings.outbox.columns.id == "id"
    assert settings.topics.config == {"retention.ms": 5}
    assert (settings.topics.create, settings.topics.partitions) == (True, 6)
    assert settings.avro.types == {"a": "B"}
    assert load(None, 'outbox.headers=["a,b"]').outbox.headers == ["a,b"]


def test_a_column_in_the_environment_overrides_that_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "f.toml", '[outbox]\ncolumns = {id = "i", key = "k"}')
    columns = load(file, CDC_OUTBOX__COLUMNS__KEY="entity").outbox.columns
    assert (columns.id, columns.key) == ("i", "entity")


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("postgres.slto=x", "--set postgres.slto: [postgres] slto: unknown setting; did you mean 'slot'?"),
        (
            "outbox.columns.keyy=x",
            "--set outbox.columns.keyy: [outbox] columns.keyy: unknown setting; did you mean 'key'?",
        ),
        ("postgrs.slot=x", "--set postgrs.slot: [postgrs]: unknown setting; did you mean 'postgres'?"),
        ("http.zzz=x", "--set http.zzz: [http] zzz: unknown setting; known are listen, linger_seconds"),
        ("postgres.slot", "--set postgres.slot: expected SECTION.NAME=VALUE, as in postgres.slot=orders"),
        ("slot", "--set slot: expected SECTION.NAME=VALUE, as in postgres.slot=orders"),
    ],
)
def test_an_unknown_setting_suggests_the_nearest_name(option: str, problem: str) -> None:
    assert problems(None, option) == (problem,)


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("CDC_POSTGRES__SLTO", "CDC_POSTGRES__SLTO: [postgres] slto: unknown setting; did you mean 'slot'?"),
        ("CDC_DSN", "CDC_DSN is not a setting: expected CDC_SECTION__NAME, as in CDC_POSTGRES__DSN"),
        ("CDC_POSTGRES__", "CDC_POSTGRES__ is not a setting: expected CDC_SECTION__NAME, as in CDC_POSTGRES__DSN"),
        ("CDC_POSTGRES_DSN", "CDC_POSTGRES_DSN is not a setting: expected CDC_SECTION__NAME, as in CDC_POSTGRES__DSN"),
    ],
)
def test_an_unknown_variable_is_an_error(variable: str, problem: str) -> None:
    assert problems(None, **{variable: "x"}) == (problem,)


def test_an_unknown_setting_in_a_file_is_reported_with_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "f.toml", '[topics]\nnam = "x"\n[avrox]\ny = 1\n')
    assert problems(file) == (
        f"{file}: [topics] nam: unknown setting; did you mean 'name'?",
        f"{file}: [avrox]: unknown setting; did you mean 'avro'?",
    )


def test_problems_of_all_sources_are_reported_together(tmp_path: Path) -> None:
    file = write(tmp_path / "f.toml", '[postgres]\nslot = "Not A Slot"\n[topics]\nname = "{"\npartitions = -5')
    found = problems(file, "nonsense", "kafka.acks=1", CDC_WRONG="1", CDC_OUTBOX__TABLE=".")
    assert len(found) == 7
    for part in (
        "nonsense",
        "CDC_WRONG",
        "slot",
        "topic template '{'",
        "partitions",
        "acks",
        "'.' is not schema.table",
    ):
        assert any(part in problem for problem in found), part


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("postgres.slot=A", "lower-case letters"),
        (f"postgres.slot={'a' * 64}", "1 to 63"),
        ("postgres.publication=", "1 to 63 bytes"),
        ("topics.dead_letter=a b", "1 to 249"),
        ("topics.name=.", "does not yield a valid topic name"),
        ("delivery.startup_seconds=-1", "greater than or equal to 0"),
        ("delivery.on_poison=skip", "input should be 'stop' or 'dead-letter'"),
        ("topics.create=perhaps", "valid boolean"),
        ("outbox.headers={}", "valid list"),
        ("outbox.table=a.", "not schema.table"),
    ],
)
def test_an_invalid_value_is_reported_with_its_origin(option: str, reason: str) -> None:
    (problem,) = problems(None, option)
    assert problem.startswith(f"--set {option.partition('=')[0]}: ")
    assert reason in problem


def test_refused_kafka_properties_are_reported_with_the_reason() -> None:
    assert sorted(problems(None, "kafka.acks=1", CDC_KAFKA__ENABLE_IDEMPOTENCE="false")) == [
        '--set kafka.acks: [kafka] "acks" = 1 is refused: only acks=all means that the record is durable',
        'CDC_KAFKA__ENABLE_IDEMPOTENCE: [kafka] "enable.idempotence" = false is refused:'
        " without it, retries duplicate and reorder records",
    ]


def test_case_d10_code_in_kafka_properties_is_refused_unless_a_setting_allows_it() -> None:
    options = ("kafka.plugin.library.paths=/tmp/x.so", "kafka.ssl.engine.location=/tmp/y.so")
    refused = problems(None, *options)
    assert len(refused) == 2
    assert all("kafka_code" in problem for problem in refused)
    (problem,) = problems(None, *options, "delivery.kafka_code=plugin.library.paths")
    assert "ssl.engine.location" in problem
    settings = load(None, *options, CDC_DELIVERY__KAFKA_CODE="plugin.library.paths,ssl.engine.location")
    assert settings.kafka["ssl.engine.location"] == "/tmp/y.so"
    (problem,) = problems(None, 'delivery.kafka_code=["acks"]')
    assert "kafka_code" in problem


def test_a_refused_kafka_property_is_reported_with_its_origin(tmp_path: Path) -> None:
    file = write(tmp_path / "f.toml", '[kafka]\n"bootstrap.servers" = "h:1"')
    (problem,) = problems(file, "kafka.acks=1")
    assert problem.startswith("--set kafka.acks: ")


@pytest.mark.parametrize("text", ["[postgres\n", "slot = ", "\x00"])
def test_a_file_with_invalid_toml_is_an_error(tmp_path: Path, text: str) -> None:
    (problem,) = problems(write(tmp_path / "f.toml", text))
    assert problem.startswith(f"settings file {tmp_path / 'f.toml'}: ")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.toml") == (f"settings file {tmp_path / 'none.toml'}: No such file or directory",)


def test_a_section_that_is_not_a_table_is_an_error_even_if_a_variable_adds_to_it(tmp_path: Path) -> None:
    file = write(tmp_path / "f.toml", "postgres = 5\n")
    assert any("postgres" in problem for problem in problems(file))
    assert any("postgres is not a table" in problem for problem in problems(file, **{DSN: "x"}))


def test_missing_required_settings_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        require(load())
    assert [problem.split(" is required")[0] for problem in caught.value.problems] == [
        "[postgres] dsn",
        '[kafka] "bootstrap.servers"',
    ]
    with pytest.raises(ConfigError, match="dsn is required"):
        require(load(), kafka=False)
    settings = load(None, "kafka.metadata.broker.list=h:1", **{DSN: "postgresql://h/db"})
    assert require(settings) is settings


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().postgres.slot = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("outbox", ("public", "outbox")),
        ("Shop.Outbox", ("Shop", "Outbox")),
        ('"my.schema".outbox', ("my.schema", "outbox")),
        ('shop."out.box"', ("shop", "out.box")),
        ('"a.b"."c""d.e"', ("a.b", 'c"d.e')),
        ('"out.box"', ("public", "out.box")),
        ('odd "name.odd "name', ('odd "name', 'odd "name')),
    ],
)
def test_case_c10_names_with_dots_are_quoted_as_postgresql_writes_them(table: str, name: tuple[str, str]) -> None:
    assert load(None, f"outbox.table={table}").outbox.qualified_name == name


@pytest.mark.parametrize("table", ["a.b.c", '"a.b', '"a"b.c', '""', 'a."', "a..b", "x" * 64, f'"{"é" * 32}"'])
def test_case_c10_a_name_that_is_no_table_is_an_error(table: str) -> None:
    assert any("outbox" in problem for problem in problems(None, f"outbox.table={table}"))


def test_case_g5_headers_that_every_record_has_or_that_occur_twice_are_errors() -> None:
    names = ["id", "eventType", "cdc-position", "cdc-sequence", "tenant", "tenant", "ID"]
    (problem,) = problems(None, f"outbox.headers={json.dumps(names)}", "outbox.table=a.b.c")
    for name in ("id", "eventType", "cdc-position", "cdc-sequence"):
        assert f"remove '{name}': the publisher sets a header of this name itself" in problem
    assert "remove the second 'tenant'" in problem
    assert "'ID'" not in problem
    assert "'a.b.c' is not schema.table" in problem


def test_key_optional_is_only_in_the_schema_of_a_key() -> None:
    settings = load(None, "record.key=json-schema", "record.key_optional=false")
    assert (settings.record.key, settings.record.key_optional) == ("json-schema", False)
    assert any("key_optional needs key" in problem for problem in problems(None, "record.key_optional=true"))


def test_an_alias_is_no_name_of_another_header() -> None:
    names = [f"tenant:{name}" for name in ("id", "eventType", "content-type", "cdc-x", "ce_id", "Id")]
    names += ["note:Id", "a:b:c", "content-type", "ce_type"]
    (problem,) = problems(None, f"outbox.headers={json.dumps(names)}")
    for name in names[:4]:
        assert f"remove '{name}': the publisher sets a header of this name itself" in problem
    assert "remove 'tenant:ce_id': names that begin with ce_ are those of CloudEvents" in problem
    assert "remove the second 'Id'" in problem
    assert "'a:b:c' has two colons: put the column's name in double quotes" in problem
    assert "remove 'content-type'" in problem
    assert "ce_type" not in problem, "a column may have such a name"


def test_polling_is_refused_with_all_that_needs_a_slot_at_once() -> None:
    settings = load(None, "postgres.source=polling", "outbox.published=mark", "postgres.poll_seconds=2")
    assert (settings.postgres.polls, settings.outbox.published, settings.postgres.poll_seconds) == (True, "mark", 2)
    assert not load().postgres.polls
    (problem,) = problems(
        None, "postgres.source=polling", "outbox.messages=m", "outbox.table=", "delivery.on_slot_lost=recover"
    )
    assert "[outbox] messages needs a slot" in problem
    assert '[postgres] source = "polling" needs [outbox] table' in problem
    assert '[delivery] on_slot_lost = "recover" needs a slot' in problem
    assert load(None, "outbox.messages=m", "outbox.table=", "delivery.on_slot_lost=recover").outbox.table == ""

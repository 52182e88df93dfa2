"""`takeover plan`: configurations as users have them become settings, and each option has a verdict."""

import contextlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.config.loading import load
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.takeover import options, plan
from cdc.takeover.connector import Configuration, properties
from cdc.takeover.documents import parse, parse_worker
from cdc.takeover.translate import translate
from cdc.takeover.verdicts import VERDICTS, Line, Translation, supported
from tests.program import run_here
from tests.takeover import CONNECTORS, FOLDER, SECRETS, plans, translated

ROUTER = "transforms.outbox."
STRING = "org.apache.kafka.connect.storage.StringConverter"
GIVEN = {"CDC_POSTGRES__DSN": "host=db dbname=x", "CDC_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092"}
BASE = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "plugin.name": "pgoutput",
    "database.hostname": "db",
    "database.user": "debezium",
    "database.dbname": "orders",
    "table.include.list": "public.outbox",
    "transforms": "outbox",
    f"{ROUTER}type": "io.debezium.transforms.outbox.EventRouter",
    "key.converter": STRING,
    "value.converter": STRING,
}


def of(**more: str) -> Translation:
    """Return the translation of BASE with other options; two underscores stand for a dot, `router` for the router."""
    changed = {name.replace("__", ".").replace("router.", ROUTER): value for name, value in more.items()}
    return translate(Configuration("connect", "test", {**BASE, **changed}), lambda *_: True)


def line(translation: Translation, option: str) -> Line:
    return next(each for each in translation.lines if each.option == option)


@pytest.mark.parametrize(("file", "text"), list(plans()), ids=[file.name for file in CONNECTORS])
def test_plan_is_as_before(file: Path, text: str) -> None:
    assert file.read_text() == text, "if this is meant: python -m tests.takeover"


@pytest.mark.parametrize("file", CONNECTORS, ids=lambda file: file.name)
def test_each_option_has_one_verdict(file: Path) -> None:
    found = translated(file)
    given = parse(file.read_text(), file.name).options
    assert sorted(each.option for each in found.lines if each.option in given) == sorted(given)
    assert {each.verdict for each in found.lines} <= set(VERDICTS)


@pytest.mark.parametrize("file", CONNECTORS, ids=lambda file: file.name)
def test_plan_is_a_settings_file_that_this_version_takes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = translated(file, complete=False)
    file = tmp_path / "cdc-publisher.toml"
    file.write_text(plan.text(found))
    (tmp_path / "schemas").mkdir()
    for reference in found.references:
        monkeypatch.setenv(reference.variable, GIVEN.get(reference.variable, "given"))
    load(file)
    assert tomllib.loads(plan.text(found)) == found.settings


@pytest.mark.parametrize("file", CONNECTORS, ids=lambda file: file.name)
def test_no_secret_is_in_a_plan(file: Path) -> None:
    found = translated(file)
    text = plan.text(found) + json.dumps(plan.document(found))
    assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize(
    ("file", "refused"),
    [
        ("two-tables.json", "table.include.list"),
        ("no-router.json", "transforms"),
        ("mysql.json", "connector.class"),
        ("refused.json", "databse.port"),
        ("placeholders.json", "database.hostname"),
    ],
)
def test_a_configuration_that_cannot_be_taken_over_is_refused(file: str, refused: str) -> None:
    assert refused in [each.option for each in translated(FOLDER / "connectors" / file).refused]


@pytest.mark.parametrize(
    "file", [file for file in CONNECTORS if file.stem in ("strings", "expanded-json", "predicate", "server", "strimzi")]
)
def test_a_usual_configuration_is_not_refused(file: Path) -> None:
    assert translated(file).refused == []


def test_settings_that_this_version_lacks_are_refused_by_name() -> None:
    found = translate(Configuration("connect", "x", BASE), lambda section, _: section != "record")
    assert line(found, "value.converter").verdict == "refused"
    assert "needs the setting [record] value" in line(found, "value.converter").text
    assert "record" not in found.settings


def test_support_follows_the_definition_of_the_settings() -> None:
    assert supported("outbox", "tombstones")
    assert supported("outbox", "columns.key")
    assert not supported("outbox", "unheard_of")
    assert supported("record", "value") == ("record" in Settings.model_fields)


def test_every_option_of_the_real_connector_is_known() -> None:
    known: dict[str, Any] = json.loads((FOLDER / "options.json").read_text())["options"]
    given = {name: str(value) for name, value in known.items() if value is not None and "plugin.version" not in name}
    found = translate(Configuration("connect", "x", {**given, **BASE}), lambda *_: True)
    assert [each for each in found.lines if "unknown" in each.text] == []
    unset = {name: "x" for name, value in known.items() if value is None and name not in BASE}
    found = translate(Configuration("connect", "x", {**unset, **BASE}), lambda *_: True)
    assert [each for each in found.lines if "unknown" in each.text] == []


def test_the_defaults_of_the_real_connector_are_not_refused() -> None:
    known = json.loads((FOLDER / "options.json").read_text())["options"]
    given = {name: value for name, value in known.items() if value is not None and "plugin.version" not in name}
    found = translate(Configuration("connect", "x", {**given, **BASE}), lambda *_: True)
    assert [each.option for each in found.refused] == []
    assert all(
        known.get(name, rule.without_effect[0]) in (None, *rule.without_effect, "")
        for name, rule in options.RULES.items()
        if rule.without_effect
    )


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    assert line(of(databse__port="1"), "databse.port") == Line(
        "databse.port", "1", "refused", "unknown option; did you mean 'database.port'?"
    )


@pytest.mark.parametrize(
    ("regex", "replacement", "template"),
    [
        ("(?<routedByValue>.*)", "outbox.event.${routedByValue}", "outbox.event.{aggregatetype}"),
        ("(.*)", "$1.events", "{aggregatetype}.events"),
        (".*", "events", "events"),
        ("(?<r>.+)", "${r}", "{aggregatetype}"),
        (".*", "a-$0", "a-{aggregatetype}"),
    ],
)
def test_a_topic_of_the_whole_value_is_a_template(regex: str, replacement: str, template: str) -> None:
    found = of(router__route__topic__regex=regex, router__route__topic__replacement=replacement)
    assert found.settings["topics"]["name"] == template


@pytest.mark.parametrize(
    ("regex", "replacement"), [("com\\.(.*)", "$1"), ("(.)(.*)", "$2"), ("(.*)", "${x}"), ("(.*)", "a b$1")]
)
def test_a_topic_of_a_part_of_the_value_is_refused(regex: str, replacement: str) -> None:
    found = of(router__route__topic__regex=regex, router__route__topic__replacement=replacement)
    assert any(each.option.startswith(f"{ROUTER}route.topic") for each in found.refused)


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        ("JsonConverter", "StringConverter", None),
        ("StringConverter", "JsonConverter", None),
        ("StringConverter", "StringConverter", "JsonConverter"),
    ],
)
def test_the_connectors_converter_overrides_the_workers(key: str, value: str, headers: str | None) -> None:
    worker = {f"{part}.converter": "org.example.OtherConverter" for part in ("key", "value", "header")}
    json_, string = "org.apache.kafka.connect.json.JsonConverter", STRING
    classes = {"JsonConverter": json_, "StringConverter": string}
    options_ = {**BASE, "key.converter": classes[key], "value.converter": classes[value]}
    options_["header.converter"] = classes[headers or "StringConverter"]
    found = translate(Configuration("connect", "x", options_, worker), lambda *_: True)
    assert not found.refused
    found = translate(Configuration("connect", "x", {n: v for n, v in BASE.items() if "conv" not in n}, worker))
    assert {each.option for each in found.refused} >= {"value.converter", "header.converter"}


def test_a_missing_converter_is_asked_for() -> None:
    bare = {name: value for name, value in BASE.items() if "converter" not in name}
    found = translate(Configuration("connect", "x", bare))
    assert {each.option for each in found.refused} == {"key.converter", "value.converter"}
    assert "--worker" in found.refused[0].text


@pytest.mark.parametrize(
    "item", ["type:envelope", "shard:partition", "x:header:id", "a:header:ce_id", "a:header:cdc-x"]
)
def test_a_placement_without_counterpart_is_refused(item: str) -> None:
    found = of(router__table__fields__additional__placement=f"tenant:header,{item}")
    assert [each.option for each in found.refused] == [f"{ROUTER}table.fields.additional.placement"]
    assert "headers" not in found.settings["outbox"]


def test_a_value_can_replace_a_placeholder() -> None:
    given = Configuration("connect", "x", {**BASE, "database.hostname": "${env:HOST}"})
    assert "database.hostname" in [each.option for each in translate(given).refused]
    found = translate(given.with_options({"database.hostname": "db2", "bootstrap.servers": "k:9092"}))
    assert "host=db2" in found.settings["postgres"]["dsn"]
    assert found.settings["kafka"]["bootstrap.servers"] == "k:9092"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("", "no configuration"),
        ("{}", "no configuration"),
        ('{"config": {"a": {}}}', "not a text"),
        ("kind: Deployment\nspec: {a: b}\n", "resource of kind 'Deployment'"),
        ("kind: [", "not valid YAML"),
    ],
)
def test_a_text_that_is_no_configuration_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, "file")


def test_variables_of_a_workers_image_are_its_properties() -> None:
    assert parse_worker("CONNECT_KEY_CONVERTER=a.B\nCONNECT_BOOTSTRAP_SERVERS=k:1\n", "env")["key.converter"] == "a.B"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", [("a", "b")]),
        ("a : b\n# c=d\n! e\n  f  g h", [("a", "b"), ("f", "g h")]),
        ("a=b\\\n   c\nd", [("a", "bc"), ("d", "")]),
        ("a\\=b=c\\u0041\\t", [("a=b", "cA\t")]),
        ("a=b\\\\\nc=d\\", [("a", "b\\"), ("c", "d")]),
    ],
)
def test_properties_are_read_as_java_does(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(properties(text)) == expected


@settings(max_examples=50)
@given(st.text())
def test_any_text_is_read_or_refused_without_another_error(text: str) -> None:
    list(properties(text))
    with contextlib.suppress(ConfigError):
        parse(text, "file")


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(sorted(options.known()) + list(BASE)), st.text(max_size=20)))
def test_any_values_of_known_options_are_translated(values: dict[str, str]) -> None:
    found = translate(Configuration("connect", "x", {**BASE, **values}), lambda *_: True)
    tomllib.loads(plan.text(found))


def test_command_prints_a_settings_file_and_ends_with_1_for_refused_options(tmp_path: Path) -> None:
    connector, worker = tmp_path / "connector.json", tmp_path / "worker.properties"
    bytes_ = "org.apache.kafka.connect.converters.ByteArrayConverter"
    connector.write_text(json.dumps({"name": "orders", "config": {**BASE, "value.converter": bytes_}}))
    worker.write_text("bootstrap.servers=kafka:9092\n")
    arguments = ("takeover", "plan", str(connector), "--worker", str(worker))
    done = run_here(arguments, {"CDC_CONNECT_USERNAME": "x"})
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout)["kafka"] == {"bootstrap.servers": "kafka:9092"}
    done = run_here((*arguments, "--set", "slot.drop.on.stop=true", "--json"), {})
    assert done.returncode == 1
    assert json.loads(done.stdout)["refused"] == 1


def test_credentials_of_connect_are_no_settings() -> None:
    done = run_here(("config", "show"), {"CDC_CONNECT_TOKEN": "x", "CDC_CONNECT_PASSWORD_FILE": "/nowhere"})
    assert done.returncode == 0, done.stderr

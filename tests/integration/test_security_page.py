"""docs/security.md, executed as printed: its roles, rights and settings are enough, and a missing one is named."""

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import errors

from tests.acls import execute
from tests.documents import ROOT, blocks
from tests.fleets import FleetWorld
from tests.guarded import GuardedPostgres, a_guarded_postgres
from tests.pipeline import Pipeline, Running, make_pipeline
from tests.secured import SecuredKafka

PAGE = ROOT / "docs" / "security.md"
PASSWORD = "zwitschern"
TOPICS = ["outbox.event.note", "outbox.event.shop"]
PRINCIPAL = "cdc-publisher"


def printed(language: str) -> list[str]:
    """The page's blocks of a language, in their order."""
    return [block.text for block in blocks(PAGE) if block.language == language]


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedPostgres]:
    with a_guarded_postgres() as server:
        with server.connect() as connection:
            connection.execute("create role shop_service login")
        yield server


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"), {"cdc-auditor": PASSWORD, "cdc-purger": PASSWORD})
    with contextlib.closing(kafka):
        kafka.start()
        yield kafka


@pytest.fixture(scope="module")
def owner(guarded: GuardedPostgres, secured: SecuredKafka, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The pipeline as its owner sees it, who may do everything; topics have their default names."""
    dsn = f"{guarded.server.dsn.removesuffix('postgres')}shop"
    made = make_pipeline(dsn, secured.address, "outbox.event.", tmp_path_factory.mktemp("owner"))
    made.settings = {
        "postgres": {"dsn": dsn},
        "kafka": {"bootstrap.servers": secured.address},
        "avro": made.settings["avro"],
    }
    assert made.run("outbox", "init").returncode == 0
    for topic in TOPICS:
        made.create_topic(topic)
    return made


@pytest.fixture(scope="module")
def password(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


@pytest.fixture(scope="module")
def admitted(owner: Pipeline, guarded: GuardedPostgres, secured: SecuredKafka) -> Pipeline:
    """With all roles, rules and rights of the page but those for exactly-once and for dead letters."""
    with guarded.connect() as connection:
        for script in printed("sql"):
            connection.execute(script.encode())
        connection.execute("revoke all on database shop from public")
        # Where PostgreSQL 14 was upgraded, everybody may create tables in `public`.
        connection.execute("revoke create on schema public from public")
    for role in ("cdc_publisher", "cdc_auditor", "cdc_purger"):
        guarded.set_password(role, PASSWORD)
    (rules,) = printed("text")
    guarded.allow(rules)
    credentials, at_least_once, *_ = printed("sh")
    for script in (credentials, at_least_once):
        run_script(secured, script)
    return owner


def run_script(secured: SecuredKafka, script: str) -> None:
    execute(secured.admin, script, {'"$KAFKA"': secured.address, "$(cat password)": PASSWORD})


@pytest.fixture
def pipeline(
    admitted: Pipeline,
    guarded: GuardedPostgres,
    secured: SecuredKafka,
    password: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Pipeline]:
    """The publisher's settings as they are printed, with its passwords in files."""
    monkeypatch.setenv("CDC_POSTGRES__PASSWORD_FILE", str(password))
    monkeypatch.setenv("CDC_KAFKA__SASL_PASSWORD_FILE", str(password))
    places = {
        "db.example:5432": f"127.0.0.1:{guarded.server.port}",
        "sslrootcert=/etc/cdc-publisher/ca.pem": f"sslrootcert={guarded.authority.file}",
        "kafka.example:9093": secured.sasl.address,
        '"/etc/cdc-publisher/ca.pem"': f'"{secured.authority.file}"',
    }
    text = "".join(printed("toml"))
    for place, ours in places.items():
        assert place in text
        text = text.replace(place, ours)
    before = admitted.settings
    admitted.settings = {**tomllib.loads(text), "avro": before["avro"], "delivery": {}}
    admitted.settings["postgres"]["slot"] = "cdc_publisher"  # the default, for the pipeline to know
    if not admitted.sql("select 1 from pg_replication_slots"):
        created = admitted.run("slot", "create")
        assert created.returncode == 0, created.stderr
    yield admitted
    admitted.close()
    admitted.settings = before


def refused(pipeline: Pipeline) -> str:
    """What a publisher that may not begin or go on says last; it must end by itself."""
    running = pipeline.start()
    assert running.wait() == 1
    return running.messages()[-1]


def publishes(pipeline: Pipeline, seq: int) -> Running:
    """A publisher that delivered an event and was stopped."""
    running = pipeline.start().streams()
    pipeline.insert(seq)
    pipeline.settles()
    assert running.stop() == 0
    assert seq in [record.value["seq"] for record in pipeline.records()]
    return running


def as_role(pipeline: Pipeline, role: str) -> None:
    """Go on as another role of PostgreSQL, and the principal of Kafka that is named after it."""
    postgres = pipeline.settings["postgres"]
    pipeline.settings["postgres"] = {**postgres, "dsn": re.sub("//cdc_[a-z]+@", f"//{role}@", postgres["dsn"])}
    pipeline.settings["kafka"]["sasl.username"] = role.replace("_", "-")


def test_what_is_printed_is_enough_to_publish_and_no_right_is_missed(pipeline: Pipeline) -> None:
    running = publishes(pipeline, 1)
    assert [
        line for line in running.log if line.get("level") == "warning" and "replication factor" not in line["message"]
    ] == []
    assert running.count("may not be read") == 0
    assert running.count("cannot be read") == 0


@pytest.mark.usefixtures("admitted")
def test_the_role_of_the_publisher_reads_no_table(guarded: GuardedPostgres) -> None:
    with guarded.connect() as connection:
        rights = "select has_table_privilege('cdc_publisher', 'public.outbox', %s)"
        for right in ("select", "insert", "update", "delete", "truncate"):
            assert connection.execute(rights, [right]).fetchall() == [(False,)]


def test_exactly_once_needs_its_transactional_id_and_no_more(pipeline: Pipeline, secured: SecuredKafka) -> None:
    pipeline.settings["delivery"] = {"guarantee": "exactly-once"}
    line = refused(pipeline)
    assert "preparing transactions of 'cdc-publisher-" in line
    assert "grant the principal WRITE and DESCRIBE on the transactional id" in line
    run_script(secured, printed("sh")[2])
    publishes(pipeline, 2)


def test_dead_letters_need_their_topic_and_no_more(pipeline: Pipeline, secured: SecuredKafka) -> None:
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    assert "grant the principal" in refused(pipeline)
    run_script(secured, printed("sh")[3])
    pipeline.sql("insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', '{}')")
    publishes(pipeline, 3)
    pipeline.sql("delete from outbox where payload = '{}'")


@pytest.mark.parametrize(
    ("topic", "pattern", "operation", "told"),
    [
        ("outbox.event.", "PREFIXED", "WRITE", "topic 'outbox.event.note'"),
        ("cdc.positions", "LITERAL", "READ", "reading topic 'cdc.positions'"),
        ("cdc.positions", "LITERAL", "WRITE", "topic 'cdc.positions'"),
    ],
)
def test_a_missing_right_is_named_with_its_topic(
    pipeline: Pipeline, secured: SecuredKafka, topic: str, pattern: str, operation: str, told: str
) -> None:
    secured.revoke(PRINCIPAL, operation, "TOPIC", topic, pattern)
    try:
        pipeline.insert(4)
        line = refused(pipeline)
        assert told in line
        assert f"grant the principal {operation}" in line
    finally:
        secured.grant(PRINCIPAL, operation, "TOPIC", topic, pattern)
        pipeline.sql("delete from outbox where (payload->>'seq')::int = 4")


def test_without_the_rights_that_may_be_left_out_events_are_published_and_the_price_is_told(
    pipeline: Pipeline, secured: SecuredKafka
) -> None:
    given = [(operation, "TOPIC", "outbox.event.", "PREFIXED") for operation in ("READ", "DESCRIBE_CONFIGS")]
    for right in given:
        secured.revoke(PRINCIPAL, *right)
    try:
        pipeline.insert(5)
        running = publishes(pipeline, 6)
        assert running.count("events may be sent twice after a crash; grant the principal READ on the topic") == 1
        assert running.count("the settings of topics cannot be read") == 1
    finally:
        for right in given:
            secured.grant(PRINCIPAL, *right)


def test_the_service_inserts_and_reads_nothing_and_the_others_do_their_work(
    pipeline: Pipeline, guarded: GuardedPostgres, secured: SecuredKafka
) -> None:
    # What was published without the right to read topics may be there twice: that was the price.
    ((before,),) = pipeline.sql("select pg_current_wal_lsn()::text")
    with guarded.connect() as connection:
        connection.execute("set role shop_service")
        connection.execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload)"
            " values ('note', 'k', 'Noted', '{\"seq\": 7}')"
        )
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("select * from outbox")
    run_script(secured, printed("sh")[4])
    running = pipeline.start().streams()
    pipeline.settles()
    as_role(pipeline, "cdc_auditor")
    audited = pipeline.run("audit", "--from-lsn", before)
    assert audited.returncode == 0, audited.stdout + audited.stderr
    as_role(pipeline, "cdc_purger")
    purged = pipeline.run("outbox", "purge", "--grace", "0s")
    assert purged.returncode == 0, purged.stderr
    assert pipeline.sql("select count(*) from outbox") == [(0,)]
    assert running.stop() == 0


def test_a_fleet_names_the_right_that_is_missing_and_joins_once_it_has_it(
    pipeline: Pipeline, secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CDC_POSTGRES__PASSWORD_FILE")  # which a fleet would refuse
    fleet = FleetWorld(pipeline.dsn, "", "shop-", tmp_path)
    kafka = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in pipeline.settings["kafka"].items()]
    fleet.kafka_settings = "\n".join(kafka)
    (script,) = (block.text for block in blocks(ROOT / "docs" / "fleet.md") if "kafka-acls.sh" in block.text)
    topic, group = re.split(r"(?m)^(?=# the distribution)", script)
    instance = fleet.start()
    instance.logs("looking up topic 'cdc.fleet.shop': ")
    assert "grant the principal" in "".join(instance.messages())
    run_script(secured, topic)
    instance.logs("joining group 'cdc.fleet.shop': ")
    instance.logs("grant the principal READ on the group")
    assert not instance.document().ready
    run_script(secured, group)
    instance.becomes_ready()
    assert instance.stop() == 0

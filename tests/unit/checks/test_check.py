"""Verdicts of `check` about servers that the integration tests do not have, and its output."""

import json
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from cdc.checks import contracts, postgres, slot
from cdc.checks.finding import FAIL, PASS, WARN, Finding, Notes
from cdc.checks.kafka import Kafka
from cdc.checks.kafka_facts import Broker, Clusters, TopicFacts
from cdc.checks.postgres_facts import Link, OtherSlot, ServerFacts
from cdc.checks.tools import Tools
from cdc.checks.topics import Judge
from cdc.checks.waiting import Waiting
from cdc.cli import check as command
from cdc.cli.main import cli, run
from cdc.config.settings import Settings
from cdc.delivery.positions import SlotRecord
from cdc.errors import KafkaUnavailable
from cdc.logs import format as lines
from cdc.lsn import LSN
from cdc.postgres import defects
from cdc.postgres.slot_health import Health
from tests.produced import produces, record

LINK = Link("db.example.com", "192.0.2.7", 5432, "shop", "cdc", encrypted=True, sslmode="verify-full", pooled=False)
SERVER = ServerFacts(
    version=180006,
    version_text="18.6 (Debian)",
    standby=False,
    wal_level="logical",
    max_slots=10,
    slots=1,
    max_senders=10,
    senders=1,
    sender_timeout="1min",
    idle_timeout="0",
    failover_waits_for="",
    slot_limit_bytes=None,
    max_wal_bytes=1024**3,
    synchronous_names="",
)
DAY = 86_400_000  # milliseconds
SETTINGS = Settings.model_validate({"kafka": {"bootstrap.servers": "kafka:9092"}})


def reached(**link: Any) -> dict[str, Finding]:
    """The findings about a connection like LINK, but with other values; `old` is a server of PostgreSQL 13."""
    notes = Notes("postgres")
    server = SERVER._replace(version=130012, version_text="13.12") if link.pop("old", False) else SERVER
    postgres.reached(notes, LINK._replace(**link), server)
    record((one.name, one.status) for one in notes.findings)
    return {one.name: one for one in notes.findings}


def test_later_finding_replaces_an_earlier_one_of_its_name() -> None:
    notes = Notes("postgres")
    notes.passes("postgres_reachable", "there")
    notes.passes("wal_level", "logical")
    notes.fails("postgres_reachable", "gone")
    assert [(one.name, one.status) for one in notes.findings] == [("wal_level", PASS), ("postgres_reachable", FAIL)]


@produces("postgres_version:fail")
def test_old_server_is_a_failure() -> None:
    found = reached(old=True)["postgres_version"]
    assert (found.status, found.found, found.hint) == (
        FAIL,
        "PostgreSQL 13 is too old",
        "14 is the oldest that works",
    )
    assert reached()["postgres_version"] == Finding("postgres_version", "postgres", PASS, "PostgreSQL 18.6")


@pytest.mark.parametrize(
    ("link", "status", "phrase"),
    [
        ({}, PASS, "TLS, sslmode=verify-full"),
        ({"sslmode": "require"}, WARN, "the certificate of db.example.com is not verified (sslmode=require)"),
        ({"encrypted": False}, WARN, "the connection to db.example.com is not encrypted"),
        ({"encrypted": False, "address": "127.0.0.1"}, PASS, "no TLS, on this machine"),
        ({"encrypted": False, "address": "", "host": "/run/postgresql"}, PASS, "no TLS, on this machine"),
        ({"encrypted": False, "address": "fe80::1%eth0"}, WARN, "is not encrypted"),
    ],
)
def test_remote_connection_without_verified_tls_is_a_warning(link: dict[str, Any], status: str, phrase: str) -> None:
    found = reached(**link)["postgres_tls"]
    assert found.status == status
    assert phrase in found.found


@produces("slot_identity:warn")
def test_unreadable_record_of_the_slot_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> None:
        raise KafkaUnavailable("no broker answers")

    monkeypatch.setattr("cdc.kafka.positions.remembered", unavailable)
    cluster = Kafka(Notes("kafka"), SETTINGS)
    cluster._cluster = Clusters("c", [Broker(1, "kafka", 9092, "")], None)
    notes = Notes("postgres")
    now = slot.SlotNow(SlotRecord("7", 1, "cdc", LSN(1), {}, {}), True, {}, LSN(1), lambda _: {})
    cluster.remembered(notes, "7/cdc", now)
    (found,) = notes.findings
    record([(found.name, found.status)])
    assert found.found == "the publisher's record of the slot cannot be read: no broker answers"


@pytest.mark.parametrize(("choice", "advised"), [("auto", True), ("python", False)])
def test_missing_accelerator_is_named_with_the_command_that_installs_it(
    choice: str, advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cdc_native", None)  # importing it raises ModuleNotFoundError
    notes = Notes("contracts")
    contracts.check(notes, Settings.model_validate({"delivery": {"accelerator": choice}}))
    (found,) = [one for one in notes.findings if one.name == "accelerator"]
    assert found.status == PASS
    assert ("pip install ./native" in found.found) == advised


def test_fix_for_replication_grants_a_role_on_rds_and_sets_an_attribute_elsewhere() -> None:
    on_rds, elsewhere = (defects.role('o"dd', allowed=False, on_rds=on_rds) for on_rds in (True, False))
    assert on_rds
    assert elsewhere
    assert on_rds.fix == ('GRANT "rds_replication" TO "o""dd";',)
    assert elsewhere.fix == ('ALTER ROLE "o""dd" REPLICATION;',)
    assert str(elsewhere.error()) == 'role "o"dd" may not replicate; run: ALTER ROLE "o""dd" REPLICATION'


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ('FATAL: role "a b" is not permitted to log in', ('ALTER ROLE "a b" LOGIN;',)),
        ('FATAL: database "shop" is not currently accepting', ('ALTER DATABASE "shop" ALLOW_CONNECTIONS true;',)),
        ("connection refused", ()),
    ],
)
def test_access_fix_is_derived_from_the_servers_error_message(message: str, fix: tuple[str, ...]) -> None:
    assert postgres.access_fix(f"{message} connections", "postgresql://me@db/shop") == fix


def test_proposed_wal_limit_is_well_above_the_retained_wal() -> None:
    notes = Notes("postgres")
    held = Health(
        plugin="pgoutput",
        database="shop",
        here=True,
        confirmed=None,
        wal_status="extended",
        safe_bytes=None,
        retained_bytes=8 * 1024**3,
        limit_bytes=None,
        invalidation=None,
        failover=False,
        temporary=False,
        two_phase=False,
        pid=None,
        sync_state=None,
        away=None,
    )
    slot.retained(notes, "cdc", held, SERVER)
    retained, limit = notes.findings
    assert (retained.status, retained.fix) == (WARN, ("cdc-publisher start",))
    assert limit.fix == ("ALTER SYSTEM SET max_slot_wal_keep_size = '32GB';", "SELECT pg_reload_conf();")


def test_fix_drops_only_slots_that_are_inactive() -> None:
    notes = Notes("postgres")
    read, kept, lost = (OtherSlot(name, False, name == "read", status, 5_000_000) for name, status in (
        ("read", "extended"), ("kept", "reserved"), ("it's", "lost"),
    ))  # fmt: skip
    slot.others(notes, [read, kept, lost])
    (found,) = notes.findings
    assert (found.status, found.fix) == (WARN, ("SELECT pg_drop_replication_slot('it''s');",))


def test_new_replicas_are_spread_over_the_brokers_that_have_none() -> None:
    tools = Tools(SETTINGS)
    plan = tools.replicate("t", ((1,), (2,), (1, 3)), [1, 2, 3], 3).split("'")[1]
    assert [part["replicas"] for part in json.loads(plan)["partitions"]] == [[1, 2, 3], [2, 3, 1], [1, 3, 2]]


def test_new_topics_get_three_replicas_or_the_configured_number() -> None:
    for brokers, topics, expected in (
        (1, {}, "--topic t"),
        (3, {}, "--topic t --replication-factor 3 --config min.insync.replicas=2"),
        (3, {"replication_factor": 2, "config": {"retention.ms": 1}}, "--replication-factor 2 --config retention.ms=1"),
    ):
        settings = Settings.model_validate({**SETTINGS.model_dump(exclude_unset=True), "topics": topics})
        notes = Notes("kafka")
        cluster = Clusters("c", [Broker(number, "kafka", 9092, "") for number in range(brokers)], None)
        Judge(notes, settings, cluster, Tools(settings)).exist([TopicFacts("t", exists=False)])
        (fix,) = notes.findings[0].fix
        assert fix.endswith(expected)


@pytest.mark.parametrize(
    ("config", "age", "status"),
    [
        ({}, 8, PASS),
        ({"message.timestamp.before.max.ms": str(7 * DAY)}, 8, FAIL),
        ({"message.timestamp.before.max.ms": str(7 * DAY)}, 6, PASS),
        ({"message.timestamp.after.max.ms": str(DAY)}, -2, FAIL),
        ({"message.timestamp.before.max.ms": "1", "message.timestamp.type": "LogAppendTime"}, 8, PASS),
        ({"retention.ms": str(7 * DAY)}, 8, WARN),
        ({"retention.ms": "-1"}, 8, PASS),
    ],
)
def test_case_d6_the_oldest_waiting_row_is_compared_with_the_limits_of_its_topic(
    config: dict[str, str], age: int, status: str
) -> None:
    notes = Notes("kafka")
    cluster = Clusters("c", [Broker(1, "kafka", 9092, "")], None)
    event = SimpleNamespace(id="e", topic="t")
    waiting = Waiting(event, int(time.time() * 1000) - age * DAY)  # type: ignore[arg-type]
    topics = [TopicFacts("elsewhere", exists=True), TopicFacts("t", exists=True, config=config)]
    Judge(notes, SETTINGS, cluster, Tools(SETTINGS)).timestamps(topics, waiting)
    assert [found.status for found in notes.findings] == [status]


def test_commands_for_a_secured_cluster_read_an_administrators_file() -> None:
    kafka = {"bootstrap.servers": "kafka:9092", "security.protocol": "SASL_SSL", "sasl.username": "o'dd"}
    tools = Tools(Settings.model_validate({"kafka": kafka}))
    assert tools.allow(["WRITE"], "--topic", "t") == (
        "kafka-acls.sh --bootstrap-server kafka:9092 --command-config admin.properties --add"
        """ --allow-principal 'User:o'"'"'dd' --operation Write --topic t"""
    )
    assert tools.hint


FOUND = [
    Finding("postgres_reachable", "postgres", PASS, "database shop"),
    Finding("outbox_table", "postgres", FAIL, "table is\x1b[2J not there", ("cdc-publisher outbox init",), "or map it"),
    Finding("topic_in_sync", "kafka", WARN, "one broker", ("kafka-configs.sh " + "x" * 300,)),
]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs `check` with options, while FOUND is what it finds."""
    monkeypatch.setattr(command, "run_checks", lambda *_: FOUND)

    def invoked(*options: str) -> Any:
        given = ["--set", "postgres.dsn=postgresql://me:canary-word@db/shop", "--set", "kafka.bootstrap.servers=k:9"]
        try:
            return CliRunner().invoke(cli, [*given, "check", *options], standalone_mode=False, catch_exceptions=False)
        finally:
            lines.hide(str)

    return invoked


def test_commands_are_printed_unfolded_and_with_the_options_of_the_call(printed: Any) -> None:
    done = printed()
    assert done.return_value == 1
    output = done.stdout.split("\n")
    assert f"      kafka-configs.sh {'x' * 300}" in output
    (init,) = [line for line in output if "outbox init" in line]
    assert init.startswith("      cdc-publisher --set postgres.dsn=")
    assert "canary" not in done.stdout
    assert "\x1b" not in done.stdout
    assert "      hint: or map it" in output
    assert output[-2] == "1 pass, 1 warn, 1 fail"


def test_json_output_is_one_object_without_secrets(printed: Any) -> None:
    answer = json.loads(printed("--json").stdout)
    assert (answer["ok"], answer["counts"]) == (False, {"pass": 1, "warn": 1, "fail": 1})
    assert list(answer["checks"][0]) == ["name", "side", "status", "found", "fix", "hint"]
    assert answer["checks"][0]["hint"] is None
    assert "canary" not in json.dumps(answer)


def test_warnings_alone_exit_with_0(printed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_checks", lambda *_: FOUND[2:])
    assert printed().return_value == 0


def test_unusable_settings_exit_with_78() -> None:
    dsn, kafka = ("--set", "postgres.dsn=postgresql://db/shop"), ("--set", "kafka.bootstrap.servers=k:9")
    try:
        assert run([*dsn, "check"]) == 78
        assert run([*dsn, *kafka, "--set", "kafka.linger.mss=5", "check"]) == 78
    finally:
        lines.hide(str)

"""`check` reports each problem of Kafka, produced on real brokers; the fix that it prints solves the problem."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from cdc.local.kafka import KafkaBroker
from cdc.local.ports import Ports
from tests.integration.checking import check, copied, fixed, not_passed, own_address, reported
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.produced import produces
from tests.servers import PrivateStack

PASSWORD = "canary-of-a-principal"
NAMES = [f"weak{number}" for number in range(9)]  # principals without rights, one for each test
_unused = iter(NAMES)


def configured(pipeline: Pipeline, topic: str, **config: str) -> None:
    """Set settings of a topic; each _ in their names stands for a dot."""
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})  # must outlive its futures
    admin.incremental_alter_configs([resource])[resource].result()


@produces("event_topics:warn", "event_topics:fail")
def test_printed_fix_creates_missing_topics_of_events(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    assert pipeline.run("outbox", "init").returncode == 0
    reported(pipeline, "event_topics", "warn", "the topics are unknown")
    pipeline.insert(1)
    pipeline.settings["topics"] |= {"partitions": 3, "config": {"retention.ms": 1000000}}
    line = fixed(pipeline, "event_topics", "fail", f"do not exist: {pipeline.topic}")
    assert "--partitions 3" in line.fix[0]
    assert f"{pipeline.topic} (3 partitions)" in check(pipeline)["event_topics"].found
    other = f"{pipeline.prefix}other"
    pipeline.settings["topics"]["create"] = True
    assert f"start creates them: {other}" in check(pipeline, "--topic", other)["event_topics"].found
    pipeline.settings["topics"]["name"] = other
    assert other in check(pipeline)["event_topics"].found


@produces("positions_topic:warn", "dead_letter_topic:warn")
def test_printed_fix_creates_and_corrects_the_publishers_own_topics(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    names = bare_pipeline.settings["topics"]
    found = check(bare_pipeline)
    assert found["dead_letter_topic"].status == "warn"
    fixed(bare_pipeline, "positions_topic", "warn", "does not exist yet")
    assert check(bare_pipeline)["dead_letter_topic"].status == "pass"
    configured(bare_pipeline, names["positions"], cleanup_policy="delete")
    fixed(bare_pipeline, "positions_topic", "warn", "cleanup.policy delete: retention deletes the publisher's records")
    configured(bare_pipeline, names["dead_letter"], retention_ms="1000")
    fixed(bare_pipeline, "dead_letter_topic", "warn", "retention.ms 1000: retention deletes old dead letters")


@produces("topic_retention:warn", "topic_unclean_election:warn", "topic_in_sync:fail")
def test_printed_fix_corrects_topic_settings_that_lose_events(pipeline: Pipeline) -> None:
    pipeline.insert(1)
    assert check(pipeline)["topic_retention"].status == "pass"
    configured(pipeline, pipeline.topic, cleanup_policy="compact,delete")
    fixed(pipeline, "topic_retention", "warn", "only the last event of each key is retained")
    configured(pipeline, pipeline.topic, unclean_leader_election_enable="true")
    fixed(pipeline, "topic_unclean_election", "warn", pipeline.topic)
    configured(pipeline, pipeline.topic, min_insync_replicas="4")
    fixed(pipeline, "topic_in_sync", "fail", "nothing can be written", f"{pipeline.topic} (4 of ")


@produces("topic_message_size:fail", "topic_message_size:warn")
def test_payload_above_the_size_limits_is_reported(pipeline: Pipeline) -> None:
    pipeline.insert(1)
    pipeline.sql("update outbox set payload = jsonb_build_object('seq', 1, 'text', repeat('x', 1500000))")
    line = check(pipeline)["topic_message_size"]
    assert (line.status, f"{pipeline.topic} (15000" in line.found) == ("fail", True), line
    pipeline.settings["kafka"]["compression.type"] = "zstd"
    assert check(pipeline)["topic_message_size"].status == "warn"
    pipeline.settings["kafka"].pop("compression.type")
    fixed(pipeline, "topic_message_size", "fail", "exceeds max.message.bytes")
    pipeline.settings["kafka"]["message.max.bytes"] = 1000000
    reported(pipeline, "topic_message_size", "fail", "exceed the producer's limit of 1000000 bytes")


@produces("topic_timestamps:fail", "topic_timestamps:warn")
def test_case_d6_limits_on_timestamps_are_compared_with_the_oldest_waiting_row(pipeline: Pipeline) -> None:
    assert "not compared" in check(pipeline, "--topic", pipeline.topic)["topic_timestamps"].found
    pipeline.insert(1)
    pipeline.sql("delete from outbox")  # it waits in the slot all the same
    assert "the oldest waiting row, " in check(pipeline)["topic_timestamps"].found
    configured(pipeline, pipeline.topic, message_timestamp_before_max_ms="1")
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    assert check(pipeline)["topic_timestamps"].status == "warn"
    pipeline.settings.pop("delivery")
    fixed(pipeline, "topic_timestamps", "fail", f"topic {pipeline.topic} refuses its timestamp")
    configured(pipeline, pipeline.topic, retention_ms="1")
    assert "deletes it soon" in check(pipeline)["topic_timestamps"].found
    configured(pipeline, pipeline.topic, message_timestamp_type="LogAppendTime")
    assert check(pipeline)["topic_timestamps"].status == "pass"


@produces("kafka_produce:fail")
def test_case_d6_check_says_that_it_produces_nothing_and_names_properties_that_prevent_it(pipeline: Pipeline) -> None:
    assert "not tried" in check(pipeline)["kafka_produce"].found
    pipeline.settings["kafka"] |= {"api.version.request": False, "broker.version.fallback": "0.9.0"}
    reported(pipeline, "kafka_produce", "fail", "no idempotent producer", "not tried")


@produces("topic_replication:warn", "topic_replication:fail")
def test_too_few_replicas_warn_fail_or_pass_as_configured(pipeline: Pipeline) -> None:
    pipeline.insert(1)
    reported(pipeline, "topic_replication", "warn", "fewer than 3 replicas")
    pipeline.settings["topics"]["replication"] = "refuse"
    reported(pipeline, "topic_replication", "fail", "fewer than 3 replicas")
    pipeline.settings["topics"]["replication"] = "any"
    assert check(pipeline)["topic_replication"].status == "pass"


@produces("topic_in_sync:warn", "topic_leaders:warn", "topic_leaders:fail")
def test_printed_fix_adds_replicas_and_lost_broker_is_reported(private_stack: PrivateStack, tmp_path: Path) -> None:
    stack = private_stack(brokers=3)
    addresses = stack.up()
    pipeline = prepare(make_pipeline(addresses.postgres, addresses.kafka, "shop-", tmp_path))
    pipeline.settings["topics"]["positions"] = f"{pipeline.prefix}positions"
    pipeline.insert(1)
    alone = f"{pipeline.prefix}alone"
    pipeline.create_topic(alone, leaders=(1, 2, 3))
    named = ("--topic", alone)
    fixed(pipeline, "topic_replication", "warn", f"{alone} (1)", options=named)
    configured(pipeline, alone, min_insync_replicas="1")
    fixed(pipeline, "topic_in_sync", "warn", "acks=all can mean a single broker", options=named)
    assert not_passed(check(pipeline, *named)) == {"slot_wal_limit": "warn"}

    pipeline.create_topic(f"{pipeline.prefix}lonely", leaders=(1, 2, 3))
    stack.brokers[2].kill()

    def seen(*options: str) -> str:
        found = check(pipeline, *options).get("topic_leaders")  # absent while the cluster elects a controller
        return found.status if found else ""

    eventually(lambda: seen(*named) == "warn", "replicas are not in sync")
    line = reported(pipeline, "topic_leaders", "warn", "replicas that are not in sync", options=named)
    assert "start the brokers" in (line.hint or "")
    reported(pipeline, "topic_leaders", "fail", "without a leader", options=("--topic", f"{pipeline.prefix}lonely"))
    stack.brokers[2].start()
    eventually(lambda: seen("--topic", f"{pipeline.prefix}lonely") == "pass", "all replicas are in sync")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker with ACLs, whose second listener authenticates principals by password."""
    home = tmp_path_factory.mktemp("guarded")
    broker = KafkaBroker(home, 1)
    ports = Ports(home / "ports.json")
    users = "".join(f' user_{name}="{PASSWORD}"' for name in ("admin", *NAMES))
    plain, guarded = f"127.0.0.1:{broker.node.port}", f"{own_address()}:{ports.get('guarded')}"
    controller = f"CONTROLLER://127.0.0.1:{broker.node.controller_port}"
    broker.settings = {
        "listeners": f"PLAINTEXT://{plain},{controller},SASL_PLAINTEXT://{guarded}",
        "advertised.listeners": f"PLAINTEXT://{plain},SASL_PLAINTEXT://{guarded}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required{users};"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin",
        # More replicas than brokers, and a limit below the publisher's transaction.timeout.ms.
        "transaction.state.log.replication.factor": "3",
        "transaction.max.timeout.ms": "15000",
    }
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def weak(guarded: KafkaBroker, database: str, topic_prefix: str, tmp_path: Path) -> Pipeline:
    """A pipeline whose principal has no rights yet; an administrator created its topics."""
    pipeline = prepare(make_pipeline(database, guarded.address, topic_prefix, tmp_path))
    pipeline.settings["kafka"] = {
        "bootstrap.servers": f"{own_address()}:{Ports(guarded.home / 'ports.json').get('guarded')}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": next(_unused),
        "sasl.password": PASSWORD,
    }
    login = f'org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="{PASSWORD}";'
    (tmp_path / "admin.properties").write_text(
        f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={login}\n"
    )
    pipeline.insert(1)
    return pipeline


@produces("kafka_idempotence:fail", "topic_rights:fail", "kafka_tls:warn")
def test_printed_fix_grants_missing_rights_on_topics(weak: Pipeline) -> None:
    line = check(weak)["topic_rights"]
    assert (line.status, f"WRITE on {weak.topic}" in line.found) == ("fail", True)
    assert "kafka_idempotence" not in check(weak)  # to whom the cluster is not shown, it does not say
    copied(weak, [line.fix[0].split("--operation")[0] + "--operation Describe --cluster"])
    fixed(weak, "kafka_idempotence", "fail", "IDEMPOTENT_WRITE neither on the cluster nor by WRITE on a topic")
    line = fixed(weak, "topic_rights", "fail", f"DESCRIBE, DESCRIBE_CONFIGS, READ, WRITE on {weak.topic}")
    assert "admin.properties" in (line.hint or "")
    found = check(weak)
    assert "fail" not in not_passed(found).values()
    assert found["topic_message_size"].status == "pass"
    line = reported(weak, "kafka_tls", "warn", "security.protocol is SASL_PLAINTEXT")
    assert "SASL_SSL" in (line.hint or "")
    running = weak.start().streams()
    weak.settles()
    assert running.stop() == 0
    assert PASSWORD not in str(found)


@produces("topic_rights:warn")
def test_missing_optional_rights_are_a_warning(weak: Pipeline, guarded: KafkaBroker) -> None:
    positions = weak.settings["topics"]["positions"]
    given = [(weak.topic, "WRITE"), (positions, "WRITE"), (positions, "READ"), (positions, "DESCRIBE")]
    principal = f"User:{weak.settings['kafka']['sasl.username']}"
    bindings = [
        AclBinding(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, principal, "*",
            AclOperation[operation], AclPermissionType.ALLOW,
        )
        for topic, operation in [*given, (weak.topic, "DESCRIBE")]
    ]  # fmt: skip
    admin = AdminClient({"bootstrap.servers": guarded.address})
    for future in admin.create_acls(bindings).values():
        future.result()
    fixed(weak, "topic_rights", "warn", f"the principal lacks DESCRIBE_CONFIGS, READ on {weak.topic}")


@produces(
    "transactions:warn",
    "transactions:fail",
    "transactional_id:warn",
    "transactional_id:fail",
    "transaction_timeout:fail",
)
def test_brokers_that_cannot_support_transactions_are_reported(weak: Pipeline, guarded: KafkaBroker) -> None:
    weak.settings["delivery"] = {"guarantee": "exactly-once"}
    reported(weak, "transactions", "warn", "the brokers' settings may not be read")
    line = check(weak)["transactional_id"]
    assert (line.status, "ACLs are not visible" in line.found) == ("warn", True)
    copied(weak, line.fix)
    fixed(weak, "transactional_id", "fail", "the principal may not use transactional id cdc-publisher-")
    weak.settings["kafka"] = {"bootstrap.servers": guarded.address}
    line = reported(weak, "transactions", "fail", "replication.factor is 3, and there are 1 brokers")
    assert "transaction.state.log.min.isr" in (line.hint or "")
    reported(weak, "transaction_timeout", "fail", "transaction.timeout.ms is 20000, more than the brokers'", "15000")
    weak.settings["kafka"]["transaction.timeout.ms"] = 15000
    assert check(weak)["transaction_timeout"].status == "pass"
    guarded.stop()
    guarded.settings["transaction.state.log.replication.factor"] = "1"
    guarded.start()
    assert check(weak)["transactions"].status == "pass"
    assert weak.start().streams().stop() == 0
    assert check(weak)["transactions"].status == "pass"


def test_wrong_kafka_password_is_reported_and_not_shown(weak: Pipeline) -> None:
    weak.settings["kafka"]["sasl.password"] = "canary-wrong-one"
    done = weak.run("check")
    assert done.returncode == 1
    assert "Authentication failed" in done.stdout
    assert "canary" not in done.stdout + done.stderr


@produces("kafka_brokers:fail")
def test_broker_unreachable_at_its_advertised_address_is_reported(weak: Pipeline, guarded: KafkaBroker) -> None:
    guarded.stop()
    right = guarded.settings.pop("advertised.listeners")
    guarded.settings["advertised.listeners"] = right.replace(
        f"PLAINTEXT://{guarded.address}", "PLAINTEXT://127.0.0.1:1"
    )
    guarded.start()
    try:
        weak.settings["kafka"] = {"bootstrap.servers": guarded.address}
        line = reported(weak, "kafka_brokers", "fail", "broker 1 at 127.0.0.1:1: ", "refused")
        assert "advertised.listeners" in (line.hint or "")
    finally:
        guarded.stop()
        guarded.settings["advertised.listeners"] = right
        guarded.start()
    assert check(weak)["kafka_brokers"].status == "pass"

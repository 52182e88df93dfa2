"""Check the Kafka cluster: brokers, encryption, and the principal's rights on the cluster."""

import ipaddress
from collections.abc import Mapping
from typing import Final

from cdc.checks.finding import Notes
from cdc.checks.kafka_facts import Clusters, TopicFacts
from cdc.checks.tools import Tools
from cdc.config.settings import Settings
from cdc.kafka.transactional_producer import TRANSACTION_MS
from cdc.quantities import plural

EVERYTHING: Final = "CLUSTER_ACTION"  # on the cluster: only administrators may, unless there are no ACLs
LOG: Final = "__transaction_state"
_LOG_REPLICATION: Final = "transaction.state.log.replication.factor"
_FALLBACK: Final = "0.10.0"  # librdkafka's default
_IDEMPOTENT: Final = (0, 11)
_LONGEST: Final = "transaction.max.timeout.ms"


def reached(notes: Notes, settings: Settings, found: Clusters) -> None:
    """Check that each broker answers at its advertised address, and that the connection is encrypted."""
    count = len(found.brokers)
    notes.passes("kafka_reachable", f"cluster {found.name} of {plural(count, 'broker')}")
    lost = [f"broker {one.number} at {one.host}:{one.port}: {one.failure}" for one in found.brokers if one.failure]
    if lost:
        hint = "set the broker's advertised.listeners to an address that is reachable from here, and restart it"
        notes.fails("kafka_brokers", f"not reachable at the advertised address: {'; '.join(lost)}", hint=hint)
    else:
        text = ", ".join(f"{one.host}:{one.port}" for one in found.brokers)
        notes.passes("kafka_brokers", f"each broker answers at its advertised address: {text}")
    protocol = str(settings.kafka.get("security.protocol", "plaintext")).upper()
    if "SSL" in protocol.replace("SASL", ""):
        notes.passes("kafka_tls", f"security.protocol is {protocol}")
    elif all(_is_local(one.host) for one in found.brokers):
        notes.passes("kafka_tls", f"security.protocol is {protocol}, on this machine")
    else:
        hint = 'set "security.protocol" to SSL or SASL_SSL in [kafka]'
        notes.warns("kafka_tls", f"the connection is not encrypted (security.protocol is {protocol})", hint=hint)


def protocol(notes: Notes, settings: Settings) -> None:
    """Report that nothing is produced, and fail for properties that hide the brokers' idempotent producer."""
    asks = str(settings.kafka.get("api.version.request", True)).lower() in ("true", "1")
    assumed = str(settings.kafka.get("broker.version.fallback", _FALLBACK))
    numbers = tuple(int(part) for part in assumed.split(".") if part.isdigit())
    if asks or numbers >= _IDEMPOTENT:
        notes.passes("kafka_produce", "not tried: check sends no record, so only start shows what brokers refuse")
        return
    text = f'"api.version.request" is false, and brokers of version {assumed} have no idempotent producer'
    hint = 'remove "api.version.request" and "broker.version.fallback" from [kafka]'
    notes.fails("kafka_produce", f"{text}; not tried, as check sends no record", hint=hint)


def idempotence(notes: Notes, tools: Tools, found: Clusters, topics: list[TopicFacts]) -> None:
    """Check the right to use an idempotent producer, which prevents duplicates by sequence numbers."""
    writes = any("WRITE" in (topic.operations or ()) for topic in topics)
    if found.operations is None and not writes:
        return  # the brokers do not report authorized operations
    if writes or "IDEMPOTENT_WRITE" in (found.operations or ()):
        notes.passes("kafka_idempotence", "an idempotent producer is allowed")
    else:
        notes.fails(
            "kafka_idempotence",
            "the principal has IDEMPOTENT_WRITE neither on the cluster nor by WRITE on a topic",
            tools.allow(["IDEMPOTENT_WRITE"], "--cluster"),
            hint=tools.hint,
        )


def transactions(
    notes: Notes, settings: Settings, found: Clusters, log: TopicFacts, broker: Mapping[str, str] | None
) -> None:
    """Check that the brokers support transactions, as long as `transaction.timeout.ms`."""
    if broker is None:
        text = "the brokers' settings may not be read: support of transactions is only known after the first one"
        notes.warns("transactions", text, hint="grant the principal DESCRIBE_CONFIGS on the cluster")
        return
    replicas, brokers = int(broker.get(_LOG_REPLICATION, 1)), len(found.brokers)
    if log.leaderless:
        text = (
            f"topic {LOG} has partitions without a leader ({_listed(log.leaderless)}): no transaction can begin in them"
        )
        notes.fails("transactions", text, hint="start the brokers that have their replicas")
    elif not log.exists and replicas > brokers:
        text = f"{_LOG_REPLICATION} is {replicas}, and there are {brokers} brokers: no transaction can begin"
        hint = f"set {_LOG_REPLICATION} and transaction.state.log.min.isr in the brokers' settings, and restart them"
        notes.fails("transactions", text, hint=hint)
    else:
        notes.passes("transactions", "the brokers support transactions")
    _timeout(notes, settings, int(broker.get(_LONGEST, TRANSACTION_MS)))


def _timeout(notes: Notes, settings: Settings, longest: int) -> None:
    wanted = int(settings.kafka.get("transaction.timeout.ms", TRANSACTION_MS))
    if wanted > longest:
        text = f"transaction.timeout.ms is {wanted}, more than the brokers' {_LONGEST} of {longest}"
        hint = f'set "transaction.timeout.ms" = {longest} in [kafka], or raise the brokers\' {_LONGEST}'
        notes.fails("transaction_timeout", text, hint=hint)
    else:
        notes.passes("transaction_timeout", f"transaction.timeout.ms is {wanted}, at most {longest} is allowed")


def transactional_id(notes: Notes, tools: Tools, name: str, allowed: bool | None) -> None:
    """Record whether an ACL allows the principal to use the transactional id; None means that ACLs are not visible."""
    if allowed is None:
        text = f"ACLs are not visible: the right to transactional id {name} is only known at its first use"
        notes.warns("transactional_id", text, tools.allow(["DESCRIBE"], "--cluster"), hint=tools.hint)
    elif allowed:
        notes.passes("transactional_id", f"the principal may use transactional id {name}")
    else:
        command = tools.allow(["WRITE", "DESCRIBE"], "--transactional-id", name)
        notes.fails("transactional_id", f"the principal may not use transactional id {name}", command, hint=tools.hint)


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))

"""Kafka as a whole: brokers, encryption, and what the publisher may do to it."""

import ipaddress
from collections.abc import Mapping
from typing import Final

from cdc.checks.finding import Notes
from cdc.checks.kafka_facts import Clusters, Topic
from cdc.checks.tools import Tools
from cdc.config.settings import Settings
from cdc.kafka.transactional_producer import TRANSACTION_MS
from cdc.quantities import plural

EVERYTHING: Final = "CLUSTER_ACTION"  # on the cluster: whoever may do that is an administrator, or there are no ACLs
LOG: Final = "__transaction_state"
_LOG_REPLICATION: Final = "transaction.state.log.replication.factor"
_LONGEST: Final = "transaction.max.timeout.ms"


def reached(notes: Notes, settings: Settings, found: Clusters) -> None:
    """Whether each broker answers where clients are told to find it, and who may listen."""
    count = len(found.brokers)
    notes.passes("kafka_reachable", f"cluster {found.name} of {plural(count, 'broker')}")
    lost = [f"broker {one.number} at {one.host}:{one.port}: {one.failure}" for one in found.brokers if one.failure]
    if lost:
        hint = "set advertised.listeners of the broker to an address that leads to it from here, and restart it"
        notes.fails("kafka_brokers", f"told by the cluster, but not to be reached: {'; '.join(lost)}", hint=hint)
    else:
        told = ", ".join(f"{one.host}:{one.port}" for one in found.brokers)
        notes.passes("kafka_brokers", f"each answers where the cluster says that it is: {told}")
    protocol = str(settings.kafka.get("security.protocol", "plaintext")).upper()
    if "SSL" in protocol.replace("SASL", ""):
        notes.passes("kafka_tls", f"security.protocol is {protocol}")
    elif all(_is_local(one.host) for one in found.brokers):
        notes.passes("kafka_tls", f"security.protocol is {protocol}, on this machine")
    else:
        hint = 'set "security.protocol" to SSL or SASL_SSL in [kafka]'
        notes.warns("kafka_tls", f"the connection is not encrypted (security.protocol is {protocol})", hint=hint)


def idempotence(notes: Notes, tools: Tools, found: Clusters, topics: list[Topic]) -> None:
    """Whether the producer may number its records, as no duplicates need it."""
    writes = any("WRITE" in (topic.operations or ()) for topic in topics)
    if found.operations is None and not writes:
        return  # the brokers do not say
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
    notes: Notes, settings: Settings, found: Clusters, log: Topic, broker: Mapping[str, str] | None
) -> None:
    """Whether the brokers can keep transactions, and for as long as ours may take."""
    if broker is None:
        told = "the brokers' settings may not be read: nothing is known of transactions before the first"
        notes.warns("transactions", told, hint="grant the principal DESCRIBE_CONFIGS on the cluster")
        return
    replicas, brokers = int(broker.get(_LOG_REPLICATION, 1)), len(found.brokers)
    if log.leaderless:
        told = (
            f"topic {LOG} has partitions without a leader ({_listed(log.leaderless)}): no transaction can begin there"
        )
        notes.fails("transactions", told, hint="start the brokers that have their replicas")
    elif not log.exists and replicas > brokers:
        told = f"{_LOG_REPLICATION} is {replicas}, and there are {brokers} brokers: no transaction can begin"
        hint = f"set {_LOG_REPLICATION} and transaction.state.log.min.isr in the brokers' settings, and restart them"
        notes.fails("transactions", told, hint=hint)
    else:
        notes.passes("transactions", "the brokers keep transactions")
    _timeout(notes, settings, int(broker.get(_LONGEST, TRANSACTION_MS)))


def _timeout(notes: Notes, settings: Settings, longest: int) -> None:
    wanted = int(settings.kafka.get("transaction.timeout.ms", TRANSACTION_MS))
    if wanted > longest:
        told = f"transaction.timeout.ms is {wanted}, more than the brokers' {_LONGEST} of {longest}"
        hint = f'set "transaction.timeout.ms" = {longest} in [kafka], or raise the brokers\' {_LONGEST}'
        notes.fails("transaction_timeout", told, hint=hint)
    else:
        notes.passes("transaction_timeout", f"transaction.timeout.ms is {wanted}, of {longest} at the most")


def transactional_id(notes: Notes, tools: Tools, name: str, allowed: bool | None) -> None:
    """Whether an ACL lets us use the transactional id; None when ACLs may not be seen."""
    if allowed is None:
        told = f"ACLs may not be seen: whether transactional id {name} may be used is not known before it is"
        notes.warns("transactional_id", told, tools.allow(["DESCRIBE"], "--cluster"), hint=tools.hint)
    elif allowed:
        notes.passes("transactional_id", f"transactional id {name} may be used")
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

"""Classifies the errors of librdkafka: temporary ones are retried with a new producer, others end the program."""

import os
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from cdc import errors

# Errors that no retry fixes, and what does.
_PERMANENT: Final = {
    KafkaError.MSG_SIZE_TOO_LARGE: "raise max.message.bytes of the topic; or, where it takes less than [kafka]"
    ' "batch.size", lower that or grant the principal DESCRIBE_CONFIGS on the topic',
    KafkaError.RECORD_LIST_TOO_LARGE: "raise max.message.bytes of the topic",
    KafkaError.INVALID_RECORD: "the topic's settings refuse a record of the batch:"
    " compaction needs keys, message.timestamp limits refuse the times of records",
    KafkaError._INVALID_DIFFERENT_RECORD: "a record of the same batch was refused: the broker's log says which and why",
    KafkaError.TOPIC_EXCEPTION: "correct [topics] name, or the column in it: Kafka takes no topic of that name",
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE: 'choose another "compression.type" in [kafka]',
    KafkaError.UNSUPPORTED_VERSION: "the brokers are too old",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant the principal WRITE and DESCRIBE on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant the principal READ on the group",
    KafkaError.INVALID_SESSION_TIMEOUT: "set [fleet] session_seconds to a value between group.min.session.timeout.ms"
    " and group.max.session.timeout.ms of the brokers",
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "another program is in this consumer group: choose another [fleet] name",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant the principal WRITE on the topic; brokers older than 2.8 need"
    " IDEMPOTENT_WRITE on the cluster",
    KafkaError.SASL_AUTHENTICATION_FAILED: 'check "sasl.username" and "sasl.password" in [kafka]',
    KafkaError._AUTHENTICATION: "check the credentials in [kafka]",
    KafkaError.INVALID_REQUIRED_ACKS: "check the topic's min.insync.replicas",
    KafkaError.INVALID_TIMESTAMP: "the topic's message.timestamp settings refuse the time of the record",
    KafkaError.INVALID_CONFIG: "check [topics] config",
    KafkaError.INVALID_REPLICATION_FACTOR: "check [topics] replication_factor against the number of brokers",
    KafkaError.INVALID_PARTITIONS: "check [topics] partitions",
    KafkaError.POLICY_VIOLATION: "the cluster's policy refuses it",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "grant the principal WRITE and DESCRIBE on the transactional id",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: 'lower "transaction.timeout.ms" in [kafka], or raise'
    " transaction.max.timeout.ms of the brokers",
    KafkaError._UNSUPPORTED_FEATURE: 'upgrade the brokers, and remove "api.version.request" and'
    ' "broker.version.fallback" from [kafka]; brokers without transactions need [delivery] guarantee = "at-least-once"',
}

# The ACL that is missing, by the first word of what was being done.
_RIGHTS: Final = {
    "reading": "grant the principal READ on the topic",
    "growing": "grant the principal ALTER on the topic, or give it more partitions",
    "creating": "create the topic, or grant the principal CREATE on it",
}

_FENCED: Final = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
"""Another producer of the same transactional id has begun, or the broker has ended a transaction that took too long."""


def kafka_error(error: KafkaError, doing: str) -> errors.CdcError:
    """Convert a KafkaError; `doing` says what failed."""
    if error.code() in _FENCED:
        return errors.Fenced(f"Kafka, {doing}: another producer uses the same transactional id ({error.name()})")
    message = f"Kafka, {doing}: {error.str()} ({error.name()})"
    hint = _PERMANENT.get(error.code())
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        hint = _RIGHTS.get(doing.split()[0], hint)
    return errors.KafkaError(message, hint=hint) if hint else errors.KafkaUnavailable(message)


def not_created(error: Exception) -> errors.CdcError:
    """Convert the error of creating a client: a wrong property, or no threads or files left."""
    if isinstance(error, SystemError):  # a callback was called after another error, which is the reason
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if not isinstance(error, KafkaException):
        return errors.ConfigError(f"[kafka] a property cannot be used: {error}")
    reason = error.args[0]
    # A certificate that cannot be opened for want of a file descriptor is reported like one that is not there.
    if reason.code() == KafkaError._INVALID_ARG and _may_open_files():
        hint = 'check the file, and "ssl.key.password" in [kafka]' if "ssl.key." in reason.str() else ""
        return errors.ConfigError(f"[kafka] {reason.str()}", hint=hint)
    return errors.KafkaUnavailable(
        f"the Kafka client cannot be created: {reason.str()}", hint="check the limits of open files and of processes"
    )


def _may_open_files() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True

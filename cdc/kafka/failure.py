"""What an error of librdkafka means for us: try again with a new producer, or give up."""

from typing import Any, Final

from confluent_kafka import KafkaError

from cdc import errors

# Errors that no second try mends, and what does.
_PERMANENT: Final = {
    KafkaError.MSG_SIZE_TOO_LARGE: 'raise "message.max.bytes" in [kafka] and max.message.bytes of the topic',
    KafkaError.RECORD_LIST_TOO_LARGE: "raise max.message.bytes of the topic",
    KafkaError.INVALID_RECORD: "the topic's settings refuse the record (compacted topics need keys, and so on)",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant the principal WRITE and DESCRIBE on the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant the principal IDEMPOTENT_WRITE on the cluster",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check sasl.username and sasl.password in [kafka]",
    KafkaError._AUTHENTICATION: "check the credentials in [kafka]",
    KafkaError.INVALID_REQUIRED_ACKS: "check the topic's min.insync.replicas",
    KafkaError.INVALID_TIMESTAMP: "the topic's message.timestamp settings refuse the commit time",
    KafkaError.INVALID_CONFIG: "check [topics] config",
    KafkaError.INVALID_REPLICATION_FACTOR: "check [topics] replication_factor against the number of brokers",
    KafkaError.INVALID_PARTITIONS: "check [topics] partitions",
    KafkaError.POLICY_VIOLATION: "the cluster's policy refuses it",
}


def kafka_error(error: Any, doing: str) -> errors.CdcError:
    """A KafkaError as one of ours."""
    message = f"Kafka, {doing}: {error.str()} ({error.name()})"
    hint = _PERMANENT.get(error.code())
    return errors.KafkaError(message, hint=hint) if hint else errors.KafkaUnavailable(message)

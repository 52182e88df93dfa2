"""cdc-publisher: a PostgreSQL outbox, published to Kafka as Avro, nothing lost."""

__version__ = "0.1.0"

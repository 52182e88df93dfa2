"""Kafka: producers, topics, and reading back what was sent. Only `cdc.kafka.client` creates clients."""

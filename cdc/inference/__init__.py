"""Infers Avro contracts from the rows of the outbox table."""

"""Confluent-compatible Schema Registry: the ids that its consumers read in front of each value."""

"""Events to Kafka records."""

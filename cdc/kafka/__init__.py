"""Kafka: the producer's settings, the producer, topics. confluent-kafka is used here and nowhere else."""

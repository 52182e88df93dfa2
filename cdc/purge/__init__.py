"""`outbox purge`: deletes the rows of the outbox whose events are in Kafka."""

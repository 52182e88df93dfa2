"""Run PostgreSQL and Apache Kafka on this machine, without containers, root or system services."""

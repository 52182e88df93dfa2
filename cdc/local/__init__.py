"""Real PostgreSQL and Apache Kafka on this machine: no container engine, no root, no system service."""

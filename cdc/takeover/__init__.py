"""Takes over an outbox from Debezium: translates its configuration, and replaces it on its own replication slot."""

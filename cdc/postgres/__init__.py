"""PostgreSQL: connections, catalog, slots, the outbox table, the replication stream."""

"""The preflight check of PostgreSQL, Kafka and the contracts; `cdc.checks.preflight` runs it."""

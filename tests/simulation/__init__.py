"""A simulated PostgreSQL, a simulated Kafka and their misfortunes around the real core, in virtual time."""

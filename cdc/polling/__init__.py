"""The rules by which rows are read from the outbox table without a slot."""

"""Sends missing events again from the rows of the outbox."""

"""Rows of the outbox table to events, and the topics that events go to."""

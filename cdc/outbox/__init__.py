"""Conversion of outbox rows to events, and the topics that events go to."""

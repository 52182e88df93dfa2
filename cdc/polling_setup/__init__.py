"""Prepares an outbox for polling: its columns and trigger, the relay's tables and row, and the rows of before."""

"""Simulated worlds of a relay: rows that are read from the table without a slot."""

"""Runs of plain rows, made into records at once."""

"""Serves health, metrics and status over HTTP."""

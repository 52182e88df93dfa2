"""Logging: set-up, formats, rate limits, and the thread that writes."""

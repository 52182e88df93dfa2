"""Logging: configuration, formats, rate limit and writer thread."""

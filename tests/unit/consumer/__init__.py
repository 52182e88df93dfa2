"""Unit tests of consumer."""

"""Unit tests of outbox."""

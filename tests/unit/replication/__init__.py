"""Unit tests of replication."""

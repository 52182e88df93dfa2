"""Unit tests of purge."""

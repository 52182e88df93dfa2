"""Unit tests of kafka."""

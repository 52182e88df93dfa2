"""Unit tests of postgres."""

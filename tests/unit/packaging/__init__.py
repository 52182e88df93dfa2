"""Unit tests of packaging."""

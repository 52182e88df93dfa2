"""Unit tests of status."""

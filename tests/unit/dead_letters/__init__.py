"""Unit tests of dead_letters."""

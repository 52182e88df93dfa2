"""Unit tests of torture."""

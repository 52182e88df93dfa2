"""Unit tests of delivery."""

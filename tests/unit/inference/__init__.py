"""Unit tests of inference."""

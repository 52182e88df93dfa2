"""Unit tests of avro."""

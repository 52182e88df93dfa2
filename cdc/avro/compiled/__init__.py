"""Encoders compiled from a contract's schema."""

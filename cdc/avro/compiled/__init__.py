"""Encoders that are generated as Python source from a contract's schema, and its plan for the native accelerator."""

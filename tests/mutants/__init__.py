"""Deliberate defects of the core, and the proof that the simulation finds each of them."""

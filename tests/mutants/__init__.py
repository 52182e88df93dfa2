"""Deliberate defects, and the proof that the simulation or the unit tests find each of them."""

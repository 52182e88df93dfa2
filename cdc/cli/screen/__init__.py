"""Renders the status document for terminals, once or as a live screen."""

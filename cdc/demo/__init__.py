"""The demo: a sample shop writes an outbox, and a reader compares the published records with the committed rows."""

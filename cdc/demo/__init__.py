"""The demo: a small shop writes, the publisher publishes, and a reader of the topics proves that the books balance."""

"""Pictures of the documentation, made from the real program: `python -m tests.screenshots`."""

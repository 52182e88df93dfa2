"""The settings: their definition, where they come from, how they are shown."""

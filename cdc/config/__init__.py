"""Settings: definitions, loading from file, environment and options, and masking of secrets."""

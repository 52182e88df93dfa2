"""`dlq`: lists and shows dead letters, and replays them to their topics."""

"""What the running publisher counts and measures, its state of health, and its spans."""

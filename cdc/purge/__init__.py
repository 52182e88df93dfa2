"""`outbox purge`: which rows may be deleted, and deleting them."""

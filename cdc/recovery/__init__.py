"""Events sent again from the rows of the outbox."""

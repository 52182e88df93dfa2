"""`audit`: compares the committed rows of the outbox table with the records of the topics."""

"""PostgreSQL's logical replication stream: bytes to rows of committed transactions, and what of them is settled."""

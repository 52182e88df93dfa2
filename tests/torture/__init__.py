"""Real faults on real servers: a seeded nemesis, a ledger of the commits, a judge that trusts neither end."""

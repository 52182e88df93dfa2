"""The composition root: opens the real connections and contracts, and hands them to delivery."""

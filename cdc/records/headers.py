"""The headers of records: who issued a position."""

import hashlib


def stream_id(system_identifier: str, timeline: int, slot: str) -> str:
    """Who issues positions: 8 hex digits of a hash over the cluster, its timeline and the slot."""
    return hashlib.sha256(f"{system_identifier}/{timeline}/{slot}".encode()).hexdigest()[:8]

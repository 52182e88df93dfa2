"""Worlds of `recover`: its real code, with a simulated table, WAL, slot, and topics."""

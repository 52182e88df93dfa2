"""Tests without a server, a socket or a sleep."""

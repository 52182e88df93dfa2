"""Comparing what the outbox table says was committed with what the topics hold."""

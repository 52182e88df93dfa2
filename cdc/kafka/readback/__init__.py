"""Reads topics backwards for the records that this publisher has sent before."""

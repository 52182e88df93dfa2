"""Benchmarks of throughput, latency, startup and memory: see `python -m benchmarks --help` and docs/speed.md."""

"""How fast, how soon and with how much memory the publisher works: `python -m benchmarks --help`, docs/speed.md."""

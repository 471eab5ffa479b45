"""Benchmarks: `python -m bench`, one JSON line per row. All through the public API, on loopback only."""

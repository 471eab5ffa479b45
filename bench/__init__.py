"""Benchmarks: `python -m bench`, one JSON line per row."""

"""Signed work: what is to run, where it was placed, how it ended, and all that a worker checks (docs/guide/work.md)."""

"""Telemetry at a node that runs: what is measured, sent, collected and exported."""

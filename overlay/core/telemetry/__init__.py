"""Signed telemetry: chains of batches, and a collector that verifies before it counts. Sans-IO."""

"""Metrics and the system status."""

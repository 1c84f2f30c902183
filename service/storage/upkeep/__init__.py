"""Retention and repair."""

"""Draining an outbox."""

"""Draining outboxes."""

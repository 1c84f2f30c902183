"""Outboxes, attempts, dead letters and replays."""

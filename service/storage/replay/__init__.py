"""Replays and what a new subscription is sent of the past, in Redis."""

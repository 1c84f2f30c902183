"""Replays, and past events of new subscriptions, in Redis."""

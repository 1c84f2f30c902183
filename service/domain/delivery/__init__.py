"""Delivery: subscriptions, the order of an outbox, retries and circuit breakers."""

"""`/v1/subscriptions`: receivers of events, their filters and settings."""

"""`/v1/subscriptions`: who is told of changes, of which, and how."""

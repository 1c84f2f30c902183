"""The metrics and their history."""

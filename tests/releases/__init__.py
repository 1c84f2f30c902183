"""Data sets as releases have left them in Redis, for the releases after them to read."""

"""Coursewire: the API and the core that API and workers share."""

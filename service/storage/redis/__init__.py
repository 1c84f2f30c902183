"""Redis: connections, scripts, keys and typed replies."""

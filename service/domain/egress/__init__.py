"""Outgoing connections: proxies and certificates."""

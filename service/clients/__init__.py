"""The two external systems: the upstream, and the receivers."""

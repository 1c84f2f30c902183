"""The schedule, its leases and the pause switch."""

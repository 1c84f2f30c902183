"""The parts of a backup: a snapshot of the server, and its keys in a portable form."""

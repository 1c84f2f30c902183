"""What a backup is made of: a snapshot of the server, and its keys in a form of our own."""

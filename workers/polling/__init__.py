"""One turn of a poll, from page to commit."""

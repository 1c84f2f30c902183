"""Access: rights of tokens, redaction of secrets, and settings of proxies before the API."""

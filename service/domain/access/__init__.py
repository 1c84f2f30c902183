"""Access: grants, signatures and redaction."""

"""Encrypted values, idempotency keys and the audit trail."""

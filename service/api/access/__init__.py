"""Authentication, scopes, and the audit trail."""

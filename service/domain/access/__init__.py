"""Access: who may do what, what may be shown, and what stands before the API."""

"""HTTP concerns shared by all routes."""

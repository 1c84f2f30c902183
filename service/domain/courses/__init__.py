"""Courses: what a record is, its fingerprint, and how it changed."""

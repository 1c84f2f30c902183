"""Courses: records, their fingerprints, and changes."""

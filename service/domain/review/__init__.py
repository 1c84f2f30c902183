"""Reviews: when changes are held for a person to decide."""

"""Reviews: limits above which changes are held for a decision."""

"""`/v1/integrations`: connected learning systems, their polls and their courses."""

"""Events: what they contain and how they are identified."""

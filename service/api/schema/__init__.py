"""Request and response schemas, and the published document."""

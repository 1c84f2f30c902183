"""The HTTP API: one controller per resource, thin over the stores."""

"""The processes that poll the upstream and push events to subscribers."""

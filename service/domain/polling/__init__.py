"""Polling: integrations, the progress of a poll, and the triage of its changes."""

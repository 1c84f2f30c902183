"""Credentials, integrations, subscriptions and API keys."""

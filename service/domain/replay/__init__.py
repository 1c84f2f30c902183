"""Replays and backfills."""

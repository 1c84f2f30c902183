"""Puts due work on RQ's queues."""

"""Puts what is due on RQ's queues."""

"""Signatures of pushes: made with secrets and keys, and verified."""

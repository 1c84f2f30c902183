"""Signatures of pushes: signing and verification."""

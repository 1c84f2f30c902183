"""The clients against peers on loopback that behave, and that do not."""

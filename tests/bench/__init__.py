"""Benchmarks: what a course costs in time and memory. Run by `make bench`."""

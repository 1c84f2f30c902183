"""A stand-in for the upstream's courses endpoint, for the demo, the tests and the benchmarks."""

"""Benchmarks: `python -m benchmarks` lists the suites."""

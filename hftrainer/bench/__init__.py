"""Benchmarks: ratios of ways to do the same, measured in turn in one process."""

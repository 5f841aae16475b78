"""Benchmarks: how fast we are, beside what the engine or the machine could do at best in the same run."""

"""Benchmarks: each prints a table and can write a dated JSON result."""

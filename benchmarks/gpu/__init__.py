"""Benchmarks that need a GPU to tell all they can."""

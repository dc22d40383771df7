"""Benchmarks of preprocessing, on the pinned sample videos (`marlin samples pull`)."""

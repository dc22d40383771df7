"""Proof that it learns: the paper's ablations on drawn faces, whose labels are exact (docs/learning.md)."""

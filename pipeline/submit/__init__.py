"""Stages as jobs of a cluster."""

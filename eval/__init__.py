"""Evaluation: features, tasks, results of published checkpoints, pictures and the report."""

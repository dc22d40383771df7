"""Pretraining: masking, model, losses, data loading, engine and checkpoints."""

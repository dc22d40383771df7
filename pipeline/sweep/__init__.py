"""A grid of overrides and seeds, each member a run of its own: `marlin sweep`."""

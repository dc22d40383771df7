"""The Ray side of the stage."""

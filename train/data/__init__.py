"""Loading: the order of clips, their bytes, their frames."""

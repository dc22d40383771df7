"""Face parsing backends: each turns pictures of a head into maps of the seven regions (docs/parsers.md)."""

"""Configuration: one schema, presets, and errors that name the key at fault."""

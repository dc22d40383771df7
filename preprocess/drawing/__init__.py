"""Drawn talking faces with known answers: for tests and for measuring learning, never for a published number."""

VERSION = 2
"""Raised whenever the same arguments draw other pictures, sounds or labels; a golden test asks for it."""

FPS = 25
"""Frames per second of every drawn video."""

RECORD = "drawn.json"
"""File of a drawn corpus that says what drew it."""

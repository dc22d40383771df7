"""Frames that are gone through twice are decoded once, where they fit into memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from preprocess.decode.frame import Frame

REPLAY_BYTES = 256 << 20
"""Most that one video may keep; longer ones are decoded each time, so memory does not grow with length."""


class Replay:
    """Remembers the frames of a video that was gone through to its end."""

    def __init__(self) -> None:
        self._kept: list[Frame] | None = None

    def frames(self, decode: Callable[[], Iterator[Frame]]) -> Iterator[Frame]:
        """What `decode` gives, from memory when it was gone through before and is small enough."""
        if self._kept is not None:
            # A frame keeps the colours it was asked for: copies go, so that memory holds the compact form alone.
            yield from (replace(frame) for frame in self._kept)
            return
        kept: list[Frame] = []
        size = 0
        for frame in decode():
            size += frame.size
            if size <= REPLAY_BYTES:
                kept.append(replace(frame))
            else:
                kept.clear()
            yield frame
        if size <= REPLAY_BYTES:
            self._kept = kept

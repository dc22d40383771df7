"""Frames that are gone through twice are decoded once, where they fit into memory."""

from collections.abc import Callable, Iterator

from preprocess.decode.frame import Frame

REPLAY_BYTES = 512 << 20
"""Most that one video may keep; longer ones are decoded each time, so memory does not grow with length."""


class Replay:
    """Remembers the frames of a video that was gone through to its end."""

    def __init__(self) -> None:
        self._kept: list[Frame] | None = None

    def frames(self, decode: Callable[[], Iterator[Frame]]) -> Iterator[Frame]:
        """What `decode` gives, from memory when it was gone through before and is small enough."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Frame] = []
        size = 0
        for frame in decode():
            yield frame
            if size <= REPLAY_BYTES:
                size += frame.rgb.nbytes
                kept.append(Frame.of(frame.index, frame.time, frame.rgb))
            else:
                kept.clear()
        if size <= REPLAY_BYTES:
            self._kept = kept

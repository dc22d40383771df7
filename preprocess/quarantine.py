"""Why a source gives no samples: a reason that is counted, and a detail that a person can read."""

from typing import Literal

Reason = Literal[
    "unreadable",  # can't be opened or fetched, or is no video container
    "no-video",  # has no video stream, or one without a single frame
    "damaged",  # the decoder failed on the way
    "too-short",  # no face stays for preprocess.min_frames
    "too-small",  # every face is smaller than preprocess.min_face
    "no-face",
    "failed",  # an unforeseen error on this source alone
    "worker-died",  # the process that worked on it died each time
]


class BadSource(Exception):
    """A source that can't be used; it goes to quarantine and never ends the stage."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["BadSource"], tuple[str, str]]:
        return BadSource, (self.reason, self.detail)

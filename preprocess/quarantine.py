"""Why a source gives no samples: a reason that is counted, and a detail that a person can read."""

from typing import Literal

Reason = Literal[
    "unreadable",  # can't be opened or fetched, or is no video container
    "no-video",  # has no video stream, or one without a single frame
    "damaged",  # the decoder failed on the way
    "no-regions",  # has no second video stream with a label map for each frame, for preprocess.parser=given
    "no-face",  # none is detected, or the mesh fits none (profiles, drawings)
    "too-short",  # no face stays for preprocess.min_frames or preprocess.min_track
    "too-small",  # every face is smaller than preprocess.min_face
    "blurred",  # every face is below preprocess.min_sharpness
    "pose",  # every face turns or nods more than preprocess.max_yaw or max_pitch
    "failed",  # an unforeseen error on this source alone
    "worker-died",  # the process that worked on it died each time
]
"""Where several hold, the reason of the run that came furthest counts (docs/faces.md)."""

Dropped = Literal[
    "brief",  # a track shorter than preprocess.min_track
    "short",  # a remainder of a track shorter than preprocess.min_frames
    "no-mesh",  # a run whose face the mesh does not fit in half of the frames
    "small",  # a run with a face smaller than preprocess.min_face
    "blurred",  # a run less sharp than preprocess.min_sharpness
    "pose",  # a run turned away more than preprocess.max_yaw or max_pitch
    "duplicate",  # a run that shows the same recording as an earlier one of the same source
]
"""Why a part of a good source is left out; each is counted."""


class BadSource(Exception):
    """A source that can't be used; it goes to quarantine and never ends the stage."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["BadSource"], tuple[str, str]]:
        return BadSource, (self.reason, self.detail)

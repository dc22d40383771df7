"""People who cross: which of two tracks goes on when both see one face, and which track a face that comes out is."""

import numpy as np

from preprocess.arrays import Floats
from preprocess.faces.geometry import distance, iou
from preprocess.faces.portrait import likeness
from preprocess.faces.track import Track

SAME_FACE = 0.3
LIKE = 0.4
"""Likeness that a face keeps to itself from frame to frame: measured in docs/faces.md."""
HIDDEN_FRAMES = 60
"""A face that stays longer behind another one is a new track when it comes out."""
RETURNING = 0.3
"""Likeness that it must have kept meanwhile."""
STRAY = 1.0
"""How far from where its motion would take it a face may come out, in sides of its box."""


def loser(a: Track, b: Track) -> Track:
    """Which of two tracks that follow one face does not own it; its last frame has been taken by the other."""
    return b if _claim(a) >= _claim(b) else a


def part(lost: Track, winner: Track) -> None:
    """Ends a track where the winner came in front of its face: later frames show the winner."""
    end = lost.end
    while end - 1 > max(lost.start, winner.start):
        here, there = lost.at(end - 1).box, winner.at(end - 1).box
        if here is not None and there is not None and iou(here, there) < SAME_FACE:
            break
        end -= 1
    lost.cut_back(end)
    lost.hidden = True


def number(tracks: list[Track]) -> list[Track]:
    """Numbers tracks by start, then by place from left to right; a face that comes out again keeps its number."""
    ordered = sorted(tracks, key=lambda track: (track.start, *_first_box(track).tolist()))
    hidden: list[Track] = []
    count = 0
    for track in ordered:
        before = max(hidden, key=lambda old: _return(old, track), default=None)
        if before is not None and _return(before, track) > RETURNING:
            track.id = before.id
        else:
            track.id, count = count, count + 1
        if track.clear is not None and track.clear.apart:
            hidden = [old for old in hidden if old.id != track.id]
            hidden += [track] if track.hidden else []
    return ordered


def _claim(track: Track) -> float:
    """How well what a track sees now agrees with the face it followed when that was last alone."""
    if track.clear is None or track.look is None:
        return -np.inf
    return likeness(track.clear.look, track.look) - distance(track.clear.box_at(track.end - 1), track.last_box())


def _return(old: Track, new: Track) -> float:
    """Likeness of a face that begins to one that was hidden; below 0 when it can't be."""
    sight, back = old.clear, new.first_clear
    if sight is None or back is None or new.scene != old.scene or not old.end <= new.start <= old.end + HIDDEN_FRAMES:
        return -1.0
    if distance(sight.box_at(back.index), back.box) > STRAY:
        return -1.0
    return likeness(sight.look, back.look)


def _first_box(track: Track) -> Floats:
    first = track.observations[0]
    box = first.box if first.detected is None else first.detected
    return track.last_box() if box is None else box

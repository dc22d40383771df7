"""Near-duplicates: copies of a recording are found whatever was done to it, other recordings of a person are not."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_videos import write_video
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config.schema import PreprocessConfig
from preprocess.decode.video import read_frames
from preprocess.faces.choose import plan_runs
from preprocess.faces.duplicates import Entry, near_duplicates
from preprocess.faces.find import Found, Stats
from preprocess.faces.fingerprint import BITS, STEP, fingerprint, places
from preprocess.faces.portrait import SIDE
from preprocess.faces.runs import Division
from preprocess.faces.tracker import Tracker
from preprocess.models import Networks

Bits = NDArray[np.uint8]
RUN = 64 // STEP


def _recording(person: int, take: int, length: int = 4 * RUN) -> Bits:
    """Fingerprints (F, 144) of a person who moves in each take otherwise: every step changes a few of some bits."""
    look = np.random.default_rng(person).integers(0, 2, BITS, dtype=np.uint8)
    rng = np.random.default_rng((person, take))
    lively = rng.permutation(BITS)[: BITS // 3]
    walk = np.cumsum(rng.normal(0, 1, (length, len(lively))), axis=0) + rng.normal(0, 1.5, len(lively))
    prints = np.tile(look, (length, 1))
    prints[:, lively] ^= (walk > 0).astype(np.uint8)
    return prints


def _noisy(prints: Bits, share: float, seed: int = 0) -> Bits:
    return prints ^ (np.random.default_rng(seed).random(prints.shape) < share).astype(np.uint8)


def _entries(name: str, prints: Bits, start: int = 0) -> list[Entry]:
    """Samples of 64 frames of one track."""
    return [
        Entry(f"{name}-{STEP * row:06d}", name, start + STEP * row, [np.packbits(bits).tobytes().hex() for bits in run])
        for row in range(0, len(prints), RUN)
        if len(run := prints[row : row + RUN]) >= RUN // 2
    ]


def test_a_copy_with_noise_is_found_run_by_run() -> None:
    film = _recording(1, 1)
    first, copy = _entries("a", film), _entries("b", _noisy(film, 0.06))
    assert near_duplicates([*first, *copy]) == {b.key: a.key for a, b in zip(first, copy, strict=True)}
    # The earlier one is kept, whichever it is.
    assert near_duplicates([*copy, *first]) == {a.key: b.key for a, b in zip(first, copy, strict=True)}


@given(cut=st.integers(1, 40), person=st.integers(0, 20))
@settings(max_examples=25)
def test_a_copy_that_begins_later_is_found(cut: int, person: int) -> None:
    film = _recording(person, 1)
    copies = _entries("b", _noisy(film[cut:], 0.05))
    found = near_duplicates([*_entries("a", film), *copies])
    assert set(found) == {entry.key for entry in copies}


@given(takes=st.integers(2, 6), person=st.integers(0, 50))
@settings(max_examples=25)
def test_other_takes_of_a_person_and_other_people_are_kept(takes: int, person: int) -> None:
    entries = [entry for take in range(takes) for entry in _entries(f"t{take}", _recording(person, take))]
    others = [entry for other in range(3) for entry in _entries(f"o{other}", _recording(100 + other, 0))]
    assert near_duplicates([*entries, *others]) == {}


def test_a_track_is_no_copy_of_itself() -> None:
    loop = np.concatenate([_recording(1, 1)] * 3)
    assert near_duplicates(_entries("a", loop)) == {}


def test_copies_of_copies_point_to_the_one_that_is_kept() -> None:
    film = _recording(3, 1)
    names = ["a", "b", "c", "d"]
    entries = [entry for n, name in enumerate(names) for entry in _entries(name, _noisy(film, 0.04 * (n > 0), n))]
    found = near_duplicates(entries)
    assert len(found) == 3 * 4
    assert {kept.split("-")[0] for kept in found.values()} == {"a"}


def test_only_the_part_that_is_shared_is_left_out() -> None:
    film, other = _recording(1, 1, 6 * RUN), _recording(2, 1, 6 * RUN)
    mixed = np.concatenate([other[: 2 * RUN], film[2 * RUN : 4 * RUN], other[4 * RUN :]])
    # Without a cut in between this is one track; the scenes of another person weigh against it, a track each does not.
    parts = [*_entries("b1", mixed[: 2 * RUN]), *_entries("b2", mixed[2 * RUN : 4 * RUN], start=7)]
    found = near_duplicates([*_entries("a", film), *parts])
    assert set(found) == {entry.key for entry in parts if entry.track == "b2"}


def test_still_and_missing_fingerprints_prove_nothing() -> None:
    still = np.tile(_recording(1, 1, 1), (2 * RUN, 1))
    copy = _noisy(still, 0.02)
    assert near_duplicates([*_entries("a", still), *_entries("b", copy)]) == {}
    # The same file twice is the same even so.
    assert len(near_duplicates([*_entries("a", still), *_entries("b", still)])) == 2
    empty = [Entry(f"{name}-0", name, 0, [""] * RUN) for name in "ab"]
    assert near_duplicates(empty) == near_duplicates([]) == {}


def test_gaps_are_left_out_of_the_comparison() -> None:
    film = _recording(1, 1)
    first, copy = _entries("a", film), _entries("b", _noisy(film, 0.05))
    holes = [Entry(e.key, e.track, e.start, ["" if n % 3 == 0 else p for n, p in enumerate(e.phash)]) for e in copy]
    assert set(near_duplicates([*first, *holes])) == {entry.key for entry in copy}


@given(st.integers(0, 500), st.integers(1, 200))
def test_places_are_the_same_frames_whichever_run_holds_them(start: int, frames: int) -> None:
    assert list(places(start, frames)) == [index for index in range(start, start + frames) if index % STEP == 0]


def test_a_fingerprint_tells_brightness_gradients() -> None:
    ramp = np.tile(np.linspace(0, 250, SIDE), (SIDE, 1)).astype(np.uint8)
    assert fingerprint(ramp) == b"\xff" * (BITS // 8)
    assert fingerprint(ramp[:, ::-1]) == fingerprint(np.zeros_like(ramp)) == bytes(BITS // 8)
    assert fingerprint((ramp * 0.6 + 40).astype(np.uint8)) == fingerprint(ramp)


@pytest.fixture(scope="module")
def entries_of(networks: Networks) -> Callable[..., list[Entry]]:
    """The samples of some frames as they would come out of preprocessing."""

    def run(name: str, frames: NDArray[np.uint8]) -> list[Entry]:
        tracker = Tracker(networks.detector, networks.mesh, detect_every=10)
        for index, rgb in enumerate(frames):
            tracker.update(index, rgb)
        found = Found(24.0, len(frames), len(frames) / 24, tracker.finish())
        chosen = plan_runs(found, PreprocessConfig(), Division(), Stats())
        return [Entry(f"{name}-{item.run.start}", name, item.run.start, item.phash) for item in chosen]

    return run


def _stored(folder: Path, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames after they were encoded and decoded."""
    return np.stack([frame.rgb for frame in read_frames(write_video(folder / "film.mp4", frames, 24))])


@pytest.mark.slow
def test_real_copies_are_found_and_other_parts_of_the_same_recording_are_not(
    samples: dict[str, Path], entries_of: Callable[..., list[Entry]], tmp_path: Path
) -> None:
    film = np.stack([frame.rgb for frame in read_frames(samples["WolfgangLanger_Pexels"])])[200:400]
    first = entries_of("a", film[:136])
    half = np.stack([cv2.resize(rgb, (320, 180), interpolation=cv2.INTER_AREA) for rgb in film[7:136]])
    bright = np.clip(film[:136] * 1.05 + 12, 0, 255).astype(np.uint8)
    for name, frames in {"half": half, "bright": bright}.items():
        copies = entries_of(name, _stored(tmp_path, frames))
        assert set(near_duplicates([*first, *copies])) == {entry.key for entry in copies}, name
    # A second later, the same woman in the same light.
    assert near_duplicates([*first, *entries_of("later", film[136:])]) == {}
    # The same recording was cut into two of the sample videos.
    shared = [
        entries_of(name, np.stack([frame.rgb for frame in read_frames(samples[name])]))
        for name in ("single_face", "face_noface")
    ]
    assert set(near_duplicates([*shared[0], *shared[1], *first])) == {entry.key for entry in shared[1]}

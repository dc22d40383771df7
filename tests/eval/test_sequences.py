"""Sliding windows and the frame sequences they run over."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import DrawnTrack, draw_face, write_dataset

from eval.sequences import cut_windows, frame_sequences, held_out, read_frames, read_part, touched, windows
from pipeline.dataset import Sample, load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import Store, open_store

LENGTHS = st.integers(1, 300)
SMALL = st.integers(1, 20)


@given(LENGTHS, SMALL, st.integers(1, 4), SMALL)
def test_windows_span_the_sequence_and_never_leave_it(frames: int, clip: int, rate: int, stride: int) -> None:
    index = windows(frames, clip, rate, stride)
    assert index.shape[1] == clip
    assert index.min() == 0
    assert index.max() <= frames - 1
    span = (clip - 1) * rate + 1
    if frames >= span:
        assert index[-1, -1] == frames - 1
        assert (np.diff(index, axis=1) == rate).all()
        starts = index[:, 0]
        assert (np.diff(starts) > 0).all()
        assert (np.diff(starts) <= stride).all()


@given(LENGTHS, st.integers(2, 20), SMALL)
def test_consecutive_frames_with_a_stride_up_to_the_clip_cover_every_frame(frames: int, clip: int, stride: int) -> None:
    index = windows(frames, clip, 1, min(stride, clip))
    assert set(index.ravel().tolist()) == set(range(frames))


def test_a_short_sequence_repeats_its_last_frame() -> None:
    assert windows(5, 4, 2, 16).tolist() == [[0, 2, 4, 4]]


def test_the_last_window_is_anchored_at_the_end() -> None:
    assert windows(10, 4, 1, 4)[:, 0].tolist() == [0, 4, 6]
    assert windows(8, 4, 1, 4)[:, 0].tolist() == [0, 4]


@pytest.mark.parametrize("arguments", [(0, 4, 1, 1), (4, 0, 1, 1), (4, 4, 0, 1), (4, 4, 1, 0)])
def test_sizes_below_one_are_refused(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        windows(*arguments)


def sample(start: int, frames: int, split: str = "train", track: int = 0) -> Sample:
    return Sample(f"k{start}-{track}", "000000", "s.tar", frames, "a.mp4", "a", track, start, split, {})


def test_samples_that_continue_each_other_form_one_sequence() -> None:
    found = frame_sequences(
        [sample(64, 32), sample(0, 64), sample(96, 32, "val"), sample(200, 40), sample(0, 32, track=1)]
    )
    shape = [(s.track, s.split, [part.start for part in s.samples], s.frames) for s in found]
    assert shape == [(0, "train", [0, 64], 96), (0, "train", [200], 40), (0, "val", [96], 32), (1, "train", [0], 32)]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    found = open_store(str(tmp_path_factory.mktemp("drawn")))
    write_dataset(found, [DrawnTrack("a.mp4", train=(33, 32), val=())])
    return found


def test_windows_cross_the_border_of_two_samples(store: Store) -> None:
    [sequence] = frame_sequences(load_dataset(store).samples)
    decoded = (read_frames(store, one) for one in sequence.samples)
    clips = list(cut_windows(decoded, sequence, windows(sequence.frames, 16, 2, 8)))
    straddling = clips[2]  # frames 16, 18 … 46: both samples
    assert straddling.shape == (16, 32, 32, 3)
    for position in (0, 15):
        drawn, _ = draw_face(0, 16 + 2 * position, 32)
        assert np.abs(straddling[position].astype(int) - drawn).mean() < 16  # JPEG at 32 pixels


def test_each_frame_is_decoded_once(store: Store) -> None:
    [sequence] = frame_sequences(load_dataset(store).samples)
    index_WT = windows(sequence.frames, 16, 1, 4)
    assert touched(sequence, index_WT) == list(sequence.samples)
    once = iter([read_frames(store, one) for one in sequence.samples])
    assert len(list(cut_windows(once, sequence, index_WT))) == len(index_WT)


def test_a_sample_that_no_window_needs_is_not_asked_for(store: Store) -> None:
    [sequence] = frame_sequences(load_dataset(store).samples)
    last_WT = np.array([[sequence.frames - 2, sequence.frames - 1]])
    [needed] = touched(sequence, last_WT)
    assert needed == sequence.samples[-1]
    [clip] = cut_windows(iter([read_frames(store, needed)]), sequence, last_WT)
    assert np.array_equal(clip, read_frames(store, needed)[-2:])


def test_a_missing_part_and_a_missing_split_are_named(store: Store) -> None:
    dataset = load_dataset(store)
    with pytest.raises(MarlinError, match=r"000000-t00-000000 .*flac"):
        read_part(store, dataset.samples[0], "flac")
    with pytest.raises(MarlinError, match=r"preprocess\.holdout"):
        held_out(dataset)

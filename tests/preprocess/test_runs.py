"""Cutting tracks into samples."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import PreprocessConfig
from preprocess.corpora import Source
from preprocess.faces.runs import Division, Run, cut_track, division_of, held_out_share


@given(
    start=st.integers(0, 1000),
    frames=st.integers(1, 700),
    clip=st.integers(1, 64),
    share=st.floats(0, 1),
    holdout=st.floats(0, 1),
)
def test_runs_never_overlap_nor_straddle_the_split(
    start: int, frames: int, clip: int, share: float, holdout: float
) -> None:
    minimum = max(1, round(clip * share))
    runs, short = cut_track(start, frames, clip=clip, minimum=minimum, division=Division(holdout=holdout))

    border = start + frames - round(frames * holdout)
    taken = [index for run in runs for index in range(run.start, run.start + run.frames)]
    assert taken == sorted(set(taken))
    assert all(start <= index < start + frames for index in taken)
    assert all(minimum <= run.frames <= clip for run in runs)
    for run in runs:
        assert run.start >= border if run.split == "val" else run.start + run.frames <= border
    # Nothing is lost but the counted remainders, each shorter than the minimum.
    assert short <= 2
    assert frames - len(taken) <= short * (minimum - 1)


@given(names=st.lists(st.text(), min_size=200, max_size=200, unique=True), share=st.floats(0.2, 0.8))
def test_held_out_identities_are_about_the_share_and_stay_held_out(names: list[str], share: float) -> None:
    smaller, larger = (PreprocessConfig(holdout_identities=s, holdout=0.1) for s in (share, share + 0.1))
    held = {name for name in names if held_out_share(name, smaller) == 1.0}
    assert abs(len(held) - 200 * share) < 60
    assert held <= {name for name in names if held_out_share(name, larger) == 1.0}
    assert {held_out_share(name, smaller) for name in set(names) - held} == {0.1}


def test_a_track_of_the_demo() -> None:
    runs, short = cut_track(10, 120, clip=32, minimum=16, division=Division(holdout=0.25))

    assert [(run.start, run.frames, run.split) for run in runs] == [
        (10, 32, "train"),
        (42, 32, "train"),
        (74, 26, "train"),
        (100, 30, "val"),
    ]
    assert short == 0


def test_an_official_list_decides_for_the_whole_track() -> None:
    listed = Source("v", "person", "v.mp4", split="test")
    division = division_of(listed, PreprocessConfig(holdout=0.5, holdout_identities=1.0))
    assert cut_track(3, 64, clip=32, minimum=16, division=division) == ([Run(3, 32, "test"), Run(35, 32, "test")], 0)

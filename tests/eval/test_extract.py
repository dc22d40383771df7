"""Features of videos as files, through the command's door and against the published package."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from drawn_runs import MakeRun
from drawn_videos import counting_frames, write_video
from hypothesis import given
from hypothesis import strategies as st
from published import published_network

from eval.extract import extract_videos
from eval.sequences import official_windows
from pipeline.checkpoints import list_checkpoints
from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store
from train.export import geometry_of, model_of, save_model
from train.formats import export_checkpoint
from train.interop import to_official
from train.sizes import SIZES


@pytest.fixture
def run(make_run: MakeRun) -> Config:
    return make_run()


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return write_video(tmp_path / "crops.mp4", counting_frames(80))


def command(run: Config, out: Path, *more: str) -> list[str]:
    return ["features", "-m", run_store(run).url, "-o", str(out), *more]


@given(st.integers(1, 200), st.integers(1, 16), st.integers(1, 4), st.integers(1, 64))
def test_official_windows_never_leave_the_video(frames: int, clip: int, rate: int, stride: int) -> None:
    index = official_windows(frames, clip, rate, stride)
    assert index.shape[1] == clip
    assert len(index) >= 1
    assert index.min() == 0
    assert index.max() < frames


@pytest.mark.parametrize(
    ("frames", "first", "count", "last"),
    [
        (5, [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4], 1, 4),
        (32, list(range(16)), 1, 15),
        (33, list(range(0, 32, 2)), 1, 30),
        (64, list(range(0, 32, 2)), 1, 30),  # the window that ends with the video is dropped
        (65, list(range(0, 32, 2)), 2, 62),
    ],
)
def test_official_windows_by_hand(frames: int, first: list[int], count: int, last: int) -> None:
    index = official_windows(frames, 16, 2, 32)
    assert index[0].tolist() == first
    assert len(index) == count
    assert index[-1, -1] == last


def test_layouts_hold_the_same_numbers(run: Config, crops: Path, tmp_path: Path) -> None:
    for suffix in ("npy", "npz", "parquet"):
        assert main(command(run, tmp_path / f"out.{suffix}", "--cropped", "--stride", "4", str(crops))) == 0
    array = np.load(tmp_path / "out.npy")
    assert array.shape == (17, SIZES["tiny"].encoder.width)
    arrays = np.load(tmp_path / "out.npz")
    assert sorted(arrays) == ["crops.mp4/0", "crops.mp4/0/seconds"]
    np.testing.assert_array_equal(arrays["crops.mp4/0"], array)
    table = pq.read_table(tmp_path / "out.parquet").to_pydict()
    np.testing.assert_array_equal(np.array(table["feature"], np.float32), array)
    assert table["start_s"] == arrays["crops.mp4/0/seconds"].tolist()
    assert set(table["video"]) == {str(crops)}


@pytest.mark.parametrize(("reduction", "reduce"), [("mean", np.mean), ("max", np.max)])
def test_windows_are_reduced(run: Config, crops: Path, tmp_path: Path, reduction: Any, reduce: Any) -> None:
    url, reduced = run_store(run).url, [f"eval.features.reduction={reduction}"]
    extract_videos([str(crops)], url, tmp_path / "all.npy", cropped=True, progress=False)
    extract_videos([str(crops)], url, tmp_path / "one.npy", reduced, cropped=True, progress=False)
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), reduce(np.load(tmp_path / "all.npy"), axis=0), rtol=1e-6)
    extract_videos([str(crops)], url, tmp_path / "o.parquet", reduced, cropped=True, progress=False)
    [feature] = pq.read_table(tmp_path / "o.parquet").to_pydict()["feature"]
    np.testing.assert_array_equal(np.array(feature, np.float32), np.load(tmp_path / "one.npy"))


def test_tokens_can_be_kept_and_bf16_is_near(run: Config, crops: Path, tmp_path: Path) -> None:
    url, out = run_store(run).url, tmp_path / "out.npy"
    extract_videos([str(crops)], url, out, ["eval.features.keep_seq=true"], cropped=True, progress=False)
    geometry = geometry_of(run)
    assert np.load(out).shape[1:] == (geometry.tokens, SIZES["tiny"].encoder.width)
    extract_videos([str(crops)], url, out, cropped=True, progress=False)
    exact = np.load(out)
    extract_videos([str(crops)], url, out, ["eval.features.precision=bf16"], cropped=True, progress=False)
    near = np.load(out)
    cosine = (exact * near).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(near, axis=1)
    assert 0.999 < cosine.min() < 1


def test_an_exported_folder_is_a_model(run: Config, crops: Path, tmp_path: Path) -> None:
    url = run_store(run).url
    export_checkpoint(url, tmp_path / "exported", "safetensors")
    for model, name in ((url, "a.npy"), (str(tmp_path / "exported"), "b.npy")):
        extract_videos([str(crops)], model, tmp_path / name, cropped=True, progress=False)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("models")
def test_faces_of_raw_videos_are_found(
    run: Config, samples: dict[str, Path], crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, out = sorted(samples.values())[0], tmp_path / "out.npz"
    assert main(command(run, out, str(faces), str(crops), str(tmp_path / "none.mp4"))) == 1
    told = capsys.readouterr().err
    assert "crops.mp4: no-face" in told
    assert told.splitlines()[-1].startswith("marlin: 2 videos of 3 gave no features (see above); the others are in")
    assert {name.split("/")[0] for name in np.load(out)} == {faces.name}


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        ("out.txt", 1, "must end with one of .npy, .npz, .parquet"),
        ("out.npy", 2, "2 are given: write .npz"),
        ("out.npz", 2, "two videos are named crops.mp4"),
    ],
)
def test_what_a_file_can_t_hold_is_wrong_usage(tmp_path: Path, name: str, count: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        extract_videos([f"{folder}/crops.mp4" for folder in range(count)], "nowhere", tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_video_that_is_given_twice_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"crops\.mp4 is given more than once"):
        extract_videos(["crops.mp4", "crops.mp4"], "nowhere", tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("eval.features.keep_seq=true", "a table can't hold: write .npz"),
        ("eval.features.stride=0", "eval.features.stride: Input should be greater than 0, not 0"),
        ("eval.features.window=all", "did you mean 'eval.features.windows'"),
    ],
)
def test_wrong_settings_are_refused_before_weights_are_read(run: Config, tmp_path: Path, given: str, said: str) -> None:
    [checkpoint] = list_checkpoints(run_store(run))
    run_store(run).delete(f"{checkpoint.prefix}/model.safetensors")
    with pytest.raises(UsageError, match=said):
        extract_videos(["a.mp4"], run_store(run).url, tmp_path / "out.parquet", [given])


def windows_of(command: list[str], out: Path) -> int:
    assert main(command) == 0
    return len(np.load(out))


def test_the_run_s_settings_are_changed_by_overrides_and_these_by_options(
    make_run: MakeRun, crops: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npy"
    run = make_run("eval.features.stride=4")
    given = command(run, out, "--cropped", str(crops))
    assert windows_of(given, out) == 17  # of 80 frames, two frames apart, 8 between the begins
    assert windows_of([*given, "eval.features.stride=8"], out) == 9
    assert windows_of([*given, "eval.features.stride=8", "eval.features.rate=1", "--stride", "16"], out) == 5


def test_overrides_alone_are_no_videos(run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(run, tmp_path / "out.npy", "eval.features.stride=8")) == 2
    assert "no video is given" in capsys.readouterr().err


def test_a_failure_leaves_what_was_there(run: Config, tmp_path: Path) -> None:
    (tmp_path / "out.npz").write_bytes(b"before")
    with pytest.raises(MarlinError, match="1 video of 1 gave no features"):
        extract_videos([str(tmp_path / "none.mp4")], run_store(run).url, tmp_path / "out.npz", cropped=True)
    assert (tmp_path / "out.npz").read_bytes() == b"before"
    with pytest.raises(UsageError, match="no published checkpoint lies there"):
        extract_videos(["a.mp4"], str(tmp_path / "nowhere"), tmp_path / "out.npz", cropped=True)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [10, 20, 32, 33, 80])
def test_official_windows_give_what_the_published_package_gives(frames: int, tmp_path: Path) -> None:
    cfg = load_config("ytf-vit-small", [f"storage.root={tmp_path}"])
    torch.manual_seed(0)
    ours, size = model_of(cfg), SIZES["small"]
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(folder, cfg, ours.state_dict(), {})
    theirs = published_network(size.encoder, size.decoder, geometry_of(cfg))
    theirs.load_state_dict(to_official(dict(ours.state_dict()), geometry_of(cfg)))
    ramp = np.random.default_rng(0).integers(0, 255, (frames, 7, 7, 3)).astype(np.uint8)
    video = write_video(tmp_path / "crop.mp4", ramp.repeat(32, axis=1).repeat(32, axis=2))
    expected = theirs.extract_video(str(video)).numpy()
    official = ["eval.features.windows=official"]
    extract_videos([str(video)], str(folder), tmp_path / "out.npy", official, cropped=True, progress=False)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-3)

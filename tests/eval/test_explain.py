"""`marlin explain`: the right frames under the right maps, and what is not there said with its nearest names."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn_runs import MakeRun
from drawn_videos import counting_frames, number_of, write_video
from synthetic import draw_face

from eval.attention import attention_maps
from eval.explain import SIDE
from eval.features import to_clips
from eval.gradcam import grad_cam
from eval.heads import HEAD, Head, publish_head
from eval.heat import over_frames
from eval.loading import open_checkpoint
from eval.pictures import heat_frame
from eval.results import publish_result
from eval.videos import middle_windows
from pipeline.checkpoints import list_checkpoints
from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.layout import run_store
from preprocess.follow import FaceTrack, video_clip, whole_picture
from preprocess.sheet import GAP, LINE
from train.formats import export_checkpoint

ROW = LINE + SIDE + GAP
NAMES = ("appearance/young", "appearance/smiling", "action/talk")


@pytest.fixture
def run(make_run: MakeRun) -> Config:
    """A run with a checkpoint, and a head of random weights for it."""
    cfg = make_run()
    store = run_store(cfg)
    dice = torch.Generator().manual_seed(3)
    head = Head(NAMES, torch.randn(3, 192, generator=dice), torch.randn(3, generator=dice))
    [checkpoint] = list_checkpoints(store)
    name = publish_head(store, checkpoint, "attributes-linear", head)
    publish_result(store, checkpoint, "attributes-linear", {"metrics": {}, HEAD: name})
    return cfg


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    frames = np.stack([draw_face(4, frame, 64)[0] for frame in range(40)])
    return write_video(tmp_path / "crops.mp4", frames)


def explained(run: Config, video: Path, out: Path, *more: str) -> np.ndarray:
    """The rows (rows, columns, S, S, 3) RGB of the picture that the command makes of a cropped video."""
    assert main(["explain", str(video), "-m", run_store(run).url, "-o", str(out), "--cropped", *more]) == 0
    picture = cv2.imread(str(out))[..., ::-1]
    assert (len(picture) - LINE) % ROW == 0
    rows = picture[LINE:].reshape(-1, ROW, *picture.shape[1:])[:, LINE : LINE + SIDE]
    return np.stack([rows[:, :, column * (SIDE + GAP) :][:, :, :SIDE] for column in range(8)], axis=1)


def expected_rows(run: Config, video: Path, attributes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The first frames of the tubelets of the middle window, and the same under each map."""
    clip = video_clip(video)
    [face] = middle_windows(clip, [whole_picture(clip, run.preprocess)], run)
    store = run_store(run)
    [checkpoint] = list_checkpoints(store)
    dice = torch.Generator().manual_seed(3)
    weights = dict(zip(NAMES, torch.randn(3, 192, generator=dice), strict=True))
    with open_checkpoint(store, checkpoint) as (model, _):
        clips = to_clips(torch.from_numpy(face.frames[None]))
        maps = {kind: attention_maps(model, clips, kind) for kind in ("rollout", "last")}
        maps |= {name: grad_cam(model, clips, weights[name]) for name in attributes}
        heats = {name: over_frames(each, model.geometry)[0, ::2].numpy() for name, each in maps.items()}
    frames = face.frames[::2]
    rows = {name: [heat_frame(*pair) for pair in zip(frames, heat, strict=True)] for name, heat in heats.items()}
    rows["frames"] = list(frames)
    return {name: np.stack([cv2.resize(p, (SIDE, SIDE)) for p in row]) for name, row in rows.items()}


@pytest.mark.parametrize("kind", ["rollout", "last"])
def test_rows_are_the_frames_under_the_maps(run: Config, crops: Path, tmp_path: Path, kind: str) -> None:
    asked = ("action/talk", "appearance/young")
    options = [word for name in asked for word in ("--attribute", name)]
    rows = explained(run, crops, tmp_path / "out.png", "--attention", kind, *options)
    expected = expected_rows(run, crops, asked)
    for row, name in zip(rows, ("frames", kind, *asked), strict=True):
        # In another call of the encoder sums may differ in the last bits, and a colour by one.
        assert np.abs(row.astype(int) - expected[name]).max() <= 2, name
    assert np.abs(expected["rollout"].astype(int) - expected["last"]).mean() > 2
    assert np.abs(expected[asked[0]].astype(int) - expected[asked[1]]).mean() > 2


def test_without_attributes_an_exported_folder_will_do(
    run: Config, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run = explained(run, crops, tmp_path / "run.png")
    assert len(of_run) == 2
    folder = tmp_path / "exported"
    export_checkpoint(run_store(run).url, folder, "safetensors")
    command = ["explain", str(crops), "--cropped", "-m", str(folder)]
    assert main([*command, "-o", str(tmp_path / "folder.png")]) == 0
    pictures = [cv2.imread(str(tmp_path / f"{name}.png"))[LINE:] for name in ("run", "folder")]
    assert np.array_equal(*pictures)
    assert main([*command, "-o", str(tmp_path / "more.png"), "--attribute", "appearance/young"]) == 2
    assert "give -m the run or its checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--attribute", "appearance/yung"), "no output 'appearance/yung' (nearest: 'appearance/young'"),
        (("--attribute", "a", "--task", "attributes"), "no head of task 'attributes' (nearest: 'attributes-linear')"),
        (("-o", "out.jpg"), "let the name end in .png"),
        (("-m", "nowhere"), "no published checkpoint lies there"),
    ],
)
def test_what_is_not_there_is_named(
    run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    """Before the video is looked at, which is not there either."""
    command = ["explain", "none.mp4", "-m", run_store(run).url, "-o", str(tmp_path / "out.png")]
    assert main([*command, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_a_run_without_heads_says_how_to_get_one(
    make_run: MakeRun, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(crops), "--cropped", "-m", run_store(make_run()).url, "-o", str(tmp_path / "out.png")]
    assert main([*command, "--attribute", "a"]) == 2
    assert "no task has left one, `marlin eval`" in capsys.readouterr().err


def test_a_video_that_can_t_be_used_is_named(run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "none.mp4", "--cropped", "-m", run_store(run).url, "-o", str(tmp_path / "out.png")]
    assert main(command) == 1
    assert "none.mp4: unreadable" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("models")
def test_faces_of_raw_videos_are_found(
    run: Config, samples: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, status, said in (
        ("carphone_pristine", 0, "out.png: 1 face"),
        ("no_face", 1, "no_face.mp4: no-face: no face in 95 frames"),
    ):
        command = ["explain", str(samples[name]), "-m", run_store(run).url, "-o", str(tmp_path / "out.png")]
        assert main(command) == status
        told = capsys.readouterr()
        assert said in told.out + told.err


def test_the_middle_of_each_face_is_taken(run: Config, tmp_path: Path) -> None:
    """Faces of 64, 40 and 9 frames, seen one after the other and at the same time."""
    clip = video_clip(write_video(tmp_path / "counting.mp4", counting_frames(80)))
    tracks = [FaceTrack(0, 0, 30.0, 64), FaceTrack(1, 40, 30.0, 40), FaceTrack(2, 71, 30.0, 9)]
    found = middle_windows(clip, tracks, run)
    assert [face.track.number for face in found] == [0, 1, 2]
    numbers = [[number_of(frame) for frame in face.frames] for face in found]
    assert numbers == [[*range(24, 40)], [*range(52, 68)], [*range(71, 80), *[79] * 7]]
    assert (found[1].begin, found[1].end) == (52 / 30, 67 / 30)

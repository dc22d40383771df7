"""Checkpoints in MLflow's model registry, used as a stranger would use them: by name, in a process of its own."""

import ast
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pytest
from drawn_runs import MakeRun
from drawn_videos import counting_frames, write_video
from mlflow import MlflowClient
from training import environment

from eval.features import WindowSpec, model_embedder
from eval.loading import open_checkpoint
from eval.register import register
from eval.sequences import windows
from eval.videos import video_features
from pipeline.assets import samples_dir
from pipeline.checkpoints import list_checkpoints
from pipeline.cli import main
from pipeline.config.load import dump_config, load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import run_store, tracking_uri
from pipeline.tracking import open_tracker
from preprocess.decode.video import read_frames
from preprocess.follow import find_tracks, read_crops, video_clip
from preprocess.models import load_networks, model_files

_USE = """
import json, sys, mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
out = {}
for cropped, videos in json.loads(sys.argv[3]).items():
    found = model.predict(pandas.DataFrame({"video": videos}), params={"cropped": cropped == "cropped"})
    out[cropped] = found.to_dict("records")
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
json.dump({"out": out, "files": files}, open(sys.argv[4], "w"))
"""


@pytest.fixture
def run(make_run: MakeRun, tmp_path: Path) -> Config:
    """A run with two checkpoints, the first of which is the better one."""
    cfg = make_run("train.keep_best=reconstruction/mse", steps=(20, 40))
    with open_tracker(cfg, run_store(cfg), tmp_path / "spool", owner=True) as tracker:
        tracker.log_metrics({"train/mse": 0.5}, 20)
    for checkpoint, mse in zip(list_checkpoints(run_store(cfg)), (0.25, 0.75), strict=True):
        text = json.dumps({"metrics": {"mse": mse}})
        run_store(cfg).write(f"evals/{checkpoint.name}/reconstruction.json", text.encode())
    return cfg


def use(cfg: Config, uri: str, folder: Path, videos: dict[str, list[Path]]) -> dict[str, Any]:
    """What a registered model makes of videos, and the files of the modules that took part."""
    texts = {kind: [str(path) for path in paths] for kind, paths in videos.items()}
    command = [sys.executable, "-c", _USE, tracking_uri(cfg), uri, json.dumps(texts), str(folder / "out.json")]
    env = environment() | {"PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


def features_of_pictures(cfg: Config, video: Path) -> np.ndarray:
    """Mean feature of a cropped video, the straight way."""
    side = cfg.preprocess.size
    frames = np.stack(
        [
            cv2.resize(frame.rgb, (side, side), interpolation=cv2.INTER_AREA)
            for frame in read_frames(video, fps=cfg.preprocess.fps)
        ]
    )
    index_WT = windows(len(frames), cfg.data.frames, cfg.data.stride, 16)
    with open_checkpoint(run_store(cfg), list_checkpoints(run_store(cfg))[0]) as (model, _):
        mean: np.ndarray = model_embedder(model)(frames[index_WT]).mean(axis=0)
    return mean


@pytest.mark.slow
@pytest.mark.usefixtures("models")
def test_the_best_checkpoint_maps_videos_to_features(
    run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert register(run, "faces") == "1"
    assert not list((tmp_path / "here").iterdir())  # MLflow's files lie with its database
    crops = write_video(tmp_path / "crops.mp4", counting_frames(70))
    (tmp_path / "text.mp4").write_text("no video")
    faces = sorted(samples_dir().iterdir())[0]
    broken = [crops, tmp_path / "text.mp4", tmp_path / "none.mp4"]
    found = use(run, "models:/faces@best", tmp_path, {"cropped": [crops], "raw": [faces, *broken]})

    [row] = found["out"]["cropped"]
    np.testing.assert_allclose(row["feature"], features_of_pictures(run, crops), atol=1e-5)
    assert (row["video"], row["track"], row["error"]) == (str(crops), 0, "")

    face, *bad = found["out"]["raw"]
    assert face["video"] == str(faces)
    assert face["windows"] > 1
    assert len(face["feature"]) == len(row["feature"])
    bad = bad[-3:]
    assert [Path(row["video"]) for row in bad] == broken
    assert [row["error"].split(":")[0] for row in bad] == ["no-face", "unreadable", "unreadable"]


@pytest.mark.slow
@pytest.mark.usefixtures("models")
def test_the_model_brings_its_own_code_and_names_what_that_imports(run: Config, tmp_path: Path) -> None:
    register(run, "whole")
    found = use(run, "models:/whole/1", tmp_path, {"raw": [tmp_path / "none.mp4"]})
    own = [
        Path(file)
        for name, file in found["files"].items()
        if name.split(".")[0] in ("pipeline", "preprocess", "train", "eval") and file
    ]
    assert len(own) > 20
    assert not [file for file in own if "code" not in file.parts]
    listed = mlflow.artifacts.download_artifacts("models:/whole/1/requirements.txt", tracking_uri=tracking_uri(run))
    named = {line.split("==")[0].lower() for line in Path(listed).read_text().splitlines()}
    owners = metadata.packages_distributions()
    imported = {name for file in own for name in imports(file.read_text())}
    unnamed = {name for name in imported if name in owners and not named & {each.lower() for each in owners[name]}}
    assert unnamed <= {"pipeline", "preprocess", "train", "eval"}


def imports(source: str) -> set[str]:
    """Packages that a module imports when it is imported itself."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_a_checkpoint_is_registered_once_and_the_alias_moves(
    run: Config, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert register(run, "again", checkpoint="40") == "1"
    assert register(run, "again") == "2"
    client = MlflowClient(tracking_uri(run))
    assert client.get_model_version_by_alias("again", "best").tags["checkpoint"].endswith("step-00000020.r0")
    (tmp_path / "run.yaml").write_text(dump_config(run))
    command = ["register", "-c", str(tmp_path / "run.yaml"), "--name", "again", "--checkpoint", "40"]
    assert main([*command, "--alias", "newest"]) == 0
    assert capsys.readouterr().out == "registered models:/again/1, alias newest\n"
    assert len(client.search_model_versions("name = 'again'")) == 2
    history = client.get_metric_history(json.loads(run_store(run).read("mlflow.json"))["run_id"], "train/mse")
    assert [(metric.step, metric.value) for metric in history] == [(20, 0.5)]


def test_what_can_t_be_registered_is_said(make_run: MakeRun, run: Config) -> None:
    with pytest.raises(MarlinError, match="no checkpoint '60'"):
        register(run, "faces", checkpoint="60")
    for checkpoint in list_checkpoints(run_store(run)):
        run_store(run).delete(f"evals/{checkpoint.name}/reconstruction.json")
    with pytest.raises(MarlinError, match="has a result of reconstruction/mse: evaluate one"):
        register(run, "faces")
    run_store(run).delete("mlflow.json")
    with pytest.raises(MarlinError, match="is not in MLflow yet"):
        register(run, "faces", checkpoint="20")


@pytest.mark.slow
def test_windows_of_a_video_are_those_of_its_crops(samples: dict[str, Path], models: dict[str, Path]) -> None:
    """Every window of every face, against all crops at once."""
    cfg = load_config("demo", ["preprocess.size=32", "preprocess.fps=10"]).preprocess
    networks = load_networks(cfg, model_files(cfg))
    clip = video_clip(sorted(samples.values())[0])
    tracks = find_tracks(clip, cfg, networks.detector, networks.mesh)
    spec = WindowSpec(clip=4, rate=2, stride=5, batch=3)

    def embed(frames_BTHWC: np.ndarray) -> np.ndarray:
        return frames_BTHWC.reshape(len(frames_BTHWC), -1).astype(np.float32)

    found = video_features(clip, tracks, cfg, embed, spec)
    for track, each in zip(tracks, found, strict=True):
        crops = np.stack([crop for owner, _, crop in read_crops(clip, tracks, cfg) if owner is track])
        assert len(crops) == track.frames
        index_WT = windows(track.frames, spec.clip, spec.rate, spec.stride)
        np.testing.assert_array_equal(each.features_WD, embed(crops[index_WT]))
        np.testing.assert_allclose(each.seconds, (track.start + index_WT[:, 0]) / track.fps)

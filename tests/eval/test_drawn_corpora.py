"""Labelled tasks on drawn corpora, from the command that draws them to the results: every layout, known labels."""

import json
from pathlib import Path

import av
import pytest
from drawn_runs import publish, small_config
from training import marlin, write_config

from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import run_store
from pipeline.storage import open_store

pytestmark = pytest.mark.slow

CASES = {
    "celebv-hq": (20, "attributes", ("attributes-linear", "appearance-knn", "action-finetune")),
    "mosei": (20, "emotion", ("emotion-linear", "sentiment7-knn", "sentiment2-attentive")),
    "ffpp": (6, "deepfake", ("deepfake-finetune", "deepfake-linear")),
}
QUICK = ("eval.probe.epochs=20", "eval.finetune.epochs=1", "eval.bootstrap=20", "eval.repeats=2")


def run_marlin(*arguments: str) -> str:
    ended = marlin(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("kind", CASES)
def test_every_task_runs_on_a_drawn_corpus(kind: str, tmp_path: Path) -> None:
    videos, topic, tasks = CASES[kind]
    corpus, root = tmp_path / kind, tmp_path / "storage"
    run_marlin("samples", "draw", kind, str(corpus), "--videos", str(videos), "--frames", "32", "--size", "64")
    place = [f"corpus.kind={kind}", f"corpus.path={corpus}", f"corpus.name={kind}", "corpus.compression=c40"]
    splits = ["corpus.splits=splits"] if kind == "celebv-hq" else []
    backends = ["preprocess.detector=none", "preprocess.parser=given", "preprocess.holdout=0"]
    backends += ["preprocess.near_duplicates=false"]  # the file says true, as of a corpus without forgeries
    dataset = root / "datasets" / kind
    cfg = _config(root, dataset, topic, tasks)
    path = write_config(cfg, tmp_path / "run.yaml")
    run_marlin("preprocess", "-c", path, f"data.dataset={dataset}", *place, *splits, *backends)
    publish(cfg, 20, tmp_path / "checkpoint")
    results = json.loads(run_marlin("eval", "-c", path))
    assert set(results) == set(tasks)

    drawn = json.loads((corpus / "drawn.json").read_text())
    loaded = load_dataset(open_store(str(dataset)))
    assert len(loaded.sources) == drawn["counts"]["videos"]
    for task in tasks:
        result = json.loads(run_store(cfg).read(f"evals/step-00000020.r0/{task}.json"))
        assert result["videos"] == drawn["counts"]["splits"]
        assert result["left_out"] == {}
        assert result["shared_people"] == 0
        assert len(result["shots"]) == 2
        assert result["dataset"] == loaded.identity
    if kind == "ffpp":
        groups = {f"method={name}" for name in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")}
        assert set(result["subgroups"]) == groups


def test_lips_are_trained_on_a_drawn_lrs2_and_dub_a_video_of_it(tmp_path: Path) -> None:
    """LRS2 as it is delivered, 25 frames a second and sound, to a dubbed film."""
    corpus, root = tmp_path / "lrs2", tmp_path / "storage"
    run_marlin("samples", "draw", "lrs2", str(corpus), "--videos", "24", "--frames", "80", "--size", "64")
    dataset = root / "datasets" / "lrs2"
    small = ["size=32", "channels=1", "steps=2", "batch=16", "judge_every=1", "sync_from=9", "encoders=[wav2lip]"]
    small += ["sync.channels=1", "sync.steps=2", "sync.batch=8"]
    cfg = small_config(
        root,
        *(f"data.dataset='{dataset}'", f"eval.datasets.lipsync='{dataset}'", "eval.tasks=[lipsync]"),
        *(f"eval.lipsync.{setting}" for setting in small),
        "eval.bootstrap=20",
    )
    path = write_config(cfg, tmp_path / "run.yaml")
    place = ["corpus.kind=lrs2", f"corpus.path={corpus}", "corpus.name=lrs2"]
    backends = ["preprocess.detector=none", "preprocess.parser=given", "preprocess.fps=25", "preprocess.audio=true"]
    run_marlin("preprocess", "-c", path, f"data.dataset={dataset}", *place, *backends)
    publish(cfg, 20, tmp_path / "checkpoint")
    assert set(json.loads(run_marlin("eval", "-c", path))) == {"lipsync"}
    (found,) = json.loads(run_store(cfg).read("evals/step-00000020.r0/lipsync.json"))["encoders"]
    assert found["videos"] > 0
    assert found["metrics"]["lse_d"] > 0

    film, sound = sorted(corpus.rglob("*.mp4"))[:2]
    dubbed = tmp_path / "dubbed.mp4"
    run_marlin("lipsync", str(film), str(sound), "-o", str(dubbed), "-m", run_store(cfg).url, "--cropped")
    with av.open(dubbed) as opened:
        assert (len(opened.streams.video), len(opened.streams.audio)) == (1, 1)
        assert opened.metadata["comment"].startswith("Synthetic")


def _config(root: Path, dataset: Path, topic: str, tasks: tuple[str, ...]) -> Config:
    named = {"attributes": ("attributes",), "emotion": ("emotion", "sentiment"), "deepfake": ("deepfake",)}[topic]
    places = [f"eval.datasets.{name}='{dataset}'" for name in named]
    return small_config(root, f"data.dataset='{dataset}'", f"eval.tasks=[{','.join(tasks)}]", *places, *QUICK)

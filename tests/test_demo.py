"""`marlin demo` through its command, on real sample videos: continued wherever it was killed, and idle once done."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from training import environment

from pipeline.checkpoints import list_checkpoints
from pipeline.storage import Store, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SMALL = [
    "train.steps=4",
    "train.checkpoint_every=2",
    "train.val_every=2",
    "train.global_batch=2",
    "train.micro_batch=2",
    "eval.probe.epochs=5",
    "eval.bootstrap=20",
]
PATIENCE = 600.0


@pytest.fixture
def videos(samples: dict[str, Path], models: dict[str, Path], tmp_path: Path) -> Path:
    """Two short sample videos with faces and one without."""
    folder = tmp_path / "it's a corpus"
    folder.mkdir()
    for name in ("single_face", "carphone_pristine", "no_face"):
        (folder / samples[name].name).symlink_to(samples[name])
    return folder


def start(videos: Path, output: Path) -> subprocess.Popen[str]:
    """The demo as a user starts it, in a process group of its own."""
    command = [sys.executable, "-m", "pipeline.cli", "demo", "-o", str(output), f'corpus.path="{videos}"', *SMALL]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, text=True, start_new_session=True, env=environment(), **streams)


def finish(videos: Path, output: Path) -> str:
    """Run the demo to its end; what it printed."""
    with start(videos, output) as process:
        text = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, text
    return text


def kill_when(videos: Path, output: Path, reached: Callable[[Store], bool]) -> None:
    """Start the demo and kill it, and all it started, at a moment of its work."""
    store = open_store(str(output))
    with start(videos, output) as process:
        deadline = time.monotonic() + PATIENCE
        while not reached(store) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None, f"ended before the moment came: {process.communicate()[0]}"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def weights(output: Path) -> tuple[str, ...]:
    """Hashes of the weights in every published checkpoint."""
    run = open_store(str(output)).at("runs/demo")
    files = [file for checkpoint in list_checkpoints(run) for file in checkpoint.files]
    return tuple(file.sha256 for file in files if file.name.endswith(".safetensors"))


def contents(output: Path) -> dict[str, float]:
    """Objects of dataset and run with the time they were written."""
    files = [path for path in output.rglob("*") if path.is_file() and path.parent.name != "mlartifacts"]
    return {str(path): path.stat().st_mtime for path in files if path.suffix in {".json", ".tar", ".safetensors"}}


def test_a_demo_killed_at_each_stage_ends_as_an_undisturbed_one_and_then_rests(videos: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    told = finish(videos, undisturbed)
    assert "track-probe: balanced accuracy" in told
    for labelled in ("attributes", "emotion", "deepfake"):
        assert f"{labelled}-linear: AUC" in told
    assert str(undisturbed / "report.html") in told

    kill_when(videos, killed, lambda store: bool(list(store.list("datasets/samples/units/"))))
    kill_when(videos, killed, lambda store: bool(list_checkpoints(store.at("runs/demo"))))
    finish(videos, killed)

    dataset = "datasets/samples/dataset.json"
    assert (killed / dataset).read_bytes() == (undisturbed / dataset).read_bytes()
    assert weights(killed) == weights(undisturbed)
    assert len(weights(killed)) == 4
    before = contents(killed)
    finish(videos, killed)
    assert contents(killed) == before

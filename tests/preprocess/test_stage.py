"""The whole stage on a real local Ray cluster: done once, resumed, extended, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_videos import write_audio

from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store
from pipeline.storage import Store
from preprocess.stage import run_preprocess

MakeConfig = Callable[..., Config]

pytestmark = pytest.mark.slow


@pytest.fixture
def corpus(tmp_path: Path, face_clip: Path) -> Path:
    """Three good clips and two bad files."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "sub dir/c.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(face_clip, folder / name)
    (folder / "bad.mp4").write_bytes(b"")
    write_audio(folder / "sound.mp4")
    return folder


def _content(store: Store) -> dict[str, bytes]:
    """Everything that lies in a dataset."""
    return {item.key: store.read(item.key) for item in store.list()}


def test_a_corpus_becomes_a_dataset_once_and_grows(corpus: Path, make_config: MakeConfig, face_clip: Path) -> None:
    cfg = make_config(corpus)
    store = dataset_store(cfg)

    first = run_preprocess(cfg, progress=False)

    assert first.new_units == 5
    assert dict(first.counts) == {
        "sources": 5,
        "quarantined": 2,
        "units": 5,
        "tracks": 1,
        "samples": 3,
        "excluded": 6,
        "frames": 32,
    }
    assert dict(first.splits) == {"train": 2, "val": 1, "test": 0}
    assert dict(first.quarantine) == {"no-video": 1, "unreadable": 1}
    info = json.loads(store.read("dataset.json"))
    assert info["parser"] == "landmarks+hair:heuristic"
    assert [model["name"] for model in info["models"]] == ["scrfd", "face_landmark", "selfie_segmentation"]
    assert info["regions"][0] == "background"

    before = _content(store)
    import ray

    again = run_preprocess(cfg, progress=False)
    assert not ray.is_initialized()
    assert (again.new_units, again.identity) == (0, first.identity)
    assert _content(store) == before

    with pytest.raises(UsageError, match=r"preprocess\.margin \(0\.0, now 0\.5\)"):
        run_preprocess(make_config(corpus, margin=0.5), progress=False)
    assert _content(store) == before

    shutil.copy(face_clip, corpus / "0new.mp4")
    grown = run_preprocess(cfg, progress=False)
    assert (grown.new_units, grown.counts["samples"], grown.counts["excluded"]) == (1, 3, 9)
    assert grown.identity != first.identity
    after = _content(store)
    assert {name: after[name] for name in before if name.startswith(("units/", "shards/"))} == {
        name: data for name, data in before.items() if name.startswith(("units/", "shards/"))
    }


def test_networks_in_actors_of_their_own_give_the_same_bytes(
    corpus: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    inside, outside = make_config(corpus, tmp_path / "inside"), make_config(corpus, tmp_path / "out", network_actors=1)
    run_preprocess(inside, progress=False)
    run_preprocess(outside, progress=False)
    assert _content(dataset_store(outside)) == _content(dataset_store(inside))


def test_without_ray_the_bytes_are_the_same(corpus: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    by_ray, alone = make_config(corpus), make_config(corpus, tmp_path / "alone", ray_address="none", workers=2)
    run_preprocess(by_ray, progress=False)
    assert run_preprocess(alone, progress=False).new_units == 5
    assert _content(dataset_store(alone)) == _content(dataset_store(by_ray))
    assert run_preprocess(alone, progress=False).new_units == 0


def test_a_killed_run_continues_to_the_same_bytes(corpus: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    whole = make_config(corpus, tmp_path / "whole")
    run_preprocess(whole, progress=False)
    cut = make_config(corpus, tmp_path / "cut", workers=1)
    (tmp_path / "cut.json").write_text(cut.model_dump_json())
    script = (
        "import sys, pathlib; from pipeline.config.schema import Config; from preprocess.stage import run_preprocess\n"
        "run_preprocess(Config.model_validate_json(pathlib.Path(sys.argv[1]).read_text()), progress=False)"
    )
    root = Path(__file__).parents[2]
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "cut.json")],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    store = dataset_store(cut)
    deadline = time.monotonic() + 120
    while not list(store.list("units/")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    done = [item.key for item in store.list("units/")]
    assert 1 <= len(done) < 5
    assert not store.exists("dataset.json")

    summary = run_preprocess(cut, progress=False)

    # Its workers may have finished the unit in hand after the driver was gone: that one is not done again.
    assert 5 - len(done) - 1 <= summary.new_units <= 5 - len(done)
    assert _content(store) == _content(dataset_store(whole))


def test_a_corpus_of_bad_files_fails_and_says_why(corpus: Path, make_config: MakeConfig) -> None:
    for name in ("a.mp4", "b.mp4", "sub dir/c.mp4"):
        (corpus / name).unlink()
    cfg = make_config(corpus, max_failed=0.5)
    with pytest.raises(MarlinError, match=r"2 of 2 sources .*no-video 1, unreadable 1.*max_failed=0\.5"):
        run_preprocess(cfg, progress=False)
    store = dataset_store(cfg)
    assert not store.exists("dataset.json")
    assert len(list(store.list("units/"))) == 2
    with pytest.raises(MarlinError, match="no samples"):
        run_preprocess(make_config(corpus, max_failed=1.0), progress=False)


def test_raw_videos_and_dataset_may_both_lie_in_a_bucket(face_clip: Path, make_config: MakeConfig, s3_url: str) -> None:
    from pipeline.storage import open_store

    raw = open_store(f"{s3_url}/raw")
    raw.write_file("people/who.mp4", face_clip)
    raw.write("people/bad.mp4", b"")

    summary = run_preprocess(make_config(f"{s3_url}/raw", f"{s3_url}/out"), progress=False)

    assert (summary.counts["samples"], dict(summary.quarantine)) == (3, {"unreadable": 1})
    assert summary.url == f"{s3_url}/out/datasets/faces"


def test_a_worker_that_dies_is_replaced_and_its_unit_done_again(
    corpus: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    import threading

    (corpus / "b.mp4").unlink()
    (corpus / "sub dir/c.mp4").unlink()
    cfg = make_config(corpus, workers=1)
    killed: list[int] = []

    def kill_one_worker() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
            for line in lines.splitlines():
                if "ray::_Worker.process" in line:
                    killed.append(int(line.split()[0]))
                    os.kill(killed[0], signal.SIGKILL)
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one_worker)
    killer.start()
    summary = run_preprocess(cfg, progress=False)
    killer.join()

    assert killed
    assert summary.counts["samples"] == 3
    assert dict(summary.quarantine) == {"no-video": 1, "unreadable": 1}

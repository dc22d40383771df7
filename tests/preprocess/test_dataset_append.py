"""`marlin dataset append`, and repair, on real faces with a real Ray cluster."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_dataset import everything, written

from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store

pytestmark = pytest.mark.slow


def test_a_dataset_is_made_extended_shrunk_and_repaired(
    make_config: Callable[..., Config], face_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for name in (first / "a.mp4", second / "b.mp4", second / "a.mp4", second / "late.mp4"):
        name.parent.mkdir(exist_ok=True)
        shutil.copy(face_clip, name)
    (first / "bad.mp4").write_bytes(b"")
    cfg = make_config(first)
    store, config = dataset_store(cfg), written(tmp_path, cfg)
    more = f"corpus.path={second}"

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert all(len(line) <= 80 or str(tmp_path) in line for line in out.splitlines())
        return out

    assert main(["dataset", "append", "-c", config, more]) == 1
    assert "run `marlin preprocess` first" in capsys.readouterr().err

    out = run("preprocess", "-c", config)
    assert "2: 1 in, 1 quarantined" in out
    assert "unreadable 1" in out
    assert load_dataset(store).identity[:12] in out
    made = everything(store)
    assert "nothing to do" in run("preprocess", "-c", config)
    assert everything(store) == made

    run("dataset", "verify", "-c", config, "--deep")
    (second / "late.mp4").rename(tmp_path / "late.mp4")
    out = run("dataset", "append", "-c", config, more)
    assert "added" in out
    assert "1 source, 3 samples, 32 frames" in out or "near-duplicate" in out or "1 source, 0 samples" in out
    assert "1 source in it by name already" in out
    after = everything(store)
    old = {key: data for key, data in made.items() if key.startswith(("units/", "shards/"))}
    assert old.items() <= after.items()
    assert "nothing to do" in run("dataset", "append", "-c", config, more)
    (tmp_path / "empty").mkdir()
    assert main(["dataset", "append", "-c", config, f"corpus.path={tmp_path}/empty"]) == 1
    assert "/empty holds no source of corpus.kind=folder: check corpus.path" in capsys.readouterr().err
    assert everything(store) == after

    run("dataset", "remove", "-c", config, "--source", "a.mp4", "--reason", "withdrew")
    out = run("preprocess", "-c", config)
    assert "1 source taken out earlier" in out
    assert {sample.source for sample in load_dataset(store).samples} == {"b.mp4"}
    run("dataset", "verify", "-c", config, "--deep")

    whole = everything(store)
    [shard] = [key for key in whole if key.startswith("shards/")]
    store.write(shard, whole[shard][:-1])
    assert main(["dataset", "verify", "-c", config]) == 1
    run("dataset", "verify", "-c", config, "--repair")
    run("preprocess", "-c", config)
    assert everything(store) == whole

"""`marlin report RUN…`: runs by their folders."""

import shutil
from pathlib import Path

import pytest
from drawn_runs import MakeRun, publish
from pages import Page

from eval.report.given import config_of_run
from pipeline.cli import main
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store


def test_runs_are_named_by_their_folders(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved since they were trained, by a path from here and by a URL, beside one that is named by its YAML."""
    cfg = make_run("run.name=one", "data.mask.ratio=0.75")
    publish(cfg, 30, tmp_path / "newer", trained=make_run("run.name=one", "data.mask.ratio=0.5", steps=()))
    make_run("run.name=two")
    shutil.move(tmp_path / "storage", tmp_path / "moved")
    shutil.move(tmp_path / "moved/runs/two", tmp_path / "moved/runs/three")
    (tmp_path / "mine.yaml").write_text("preset: demo\nrun: {name: mine}\ncorpus: {name: drawn}\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["moved/runs/one/", f"file://{tmp_path}/moved/runs/three", f"storage.root={tmp_path}/elsewhere"]
    assert main(["report", "-c", "mine.yaml", *arguments, "-o", "page.html"]) == 0
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert "one, three, mine · MARLIN report" in page.text
    assert "Masking fasking, 50% hidden" in page.text
    assert f"{tmp_path}/moved/runs/one" in page.texts["provenance"]


def test_a_run_is_placed_where_its_folder_lies(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run("run.name=one", "data.mask.ratio=0.75")
    shutil.move(tmp_path / "storage", tmp_path / "moved")
    found = config_of_run(f"{tmp_path}/moved/runs/one", ["eval.datasets.emotion=/data/emotion"])
    assert (found.storage.root, found.run.name, found.data.mask.ratio) == (f"{tmp_path}/moved", "one", 0.75)
    assert found.eval.datasets.emotion == "/data/emotion"
    assert run_store(found).url == f"{tmp_path}/moved/runs/one"
    assert found.train == cfg.train


def test_a_run_in_object_storage_is_named_by_its_url(make_run: MakeRun, tmp_path: Path, s3_url: str) -> None:
    make_run("run.name=first", f"storage.root={s3_url}")
    assert main(["report", f"{s3_url}/runs/first", "-o", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert f"{s3_url}/runs/first" in page.texts["provenance"]
    assert "step-00000020.r0" in page.texts["provenance"]


def test_what_is_no_run_is_called_so(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = make_run(steps=())
    for url in (str(tmp_path / "storage"), f"{run_store(cfg).url}/checkpoints/step-00000020.r0"):
        with pytest.raises(UsageError, match=r"is not the folder of a run, <storage.root>/runs/<run.name>"):
            config_of_run(url)
    with pytest.raises(MarlinError, match="has no published checkpoint"):
        config_of_run(run_store(cfg).url)
    assert main(["report", "-o", str(tmp_path / "page.html")]) == 2
    assert "marlin: a report needs at least one run: give its folder" in capsys.readouterr().err

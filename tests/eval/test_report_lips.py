"""Lip synchronisation in the report: a row for each encoder, beside the published one."""

from pathlib import Path

import pytest
from drawn_runs import MakeRun
from pages import Page

from eval.report.comparison import unlike
from eval.report.page import write_report
from eval.report.shown import gap
from eval.results import publish_result
from eval.sweep import sweep_tables
from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store, run_store
from pipeline.sweep.plan import Member

METRICS = {
    "lse_d": 0.71234,
    "lse_c": 0.2,
    "real_lse_d": 0.5,
    "real_lse_c": 0.3,
    "psnr": 28.126,
    "ssim": 0.9,
    "copied_psnr": 22.0,
    "copied_ssim": 0.8,
}


def result(cfg: Config, sha256: str = "ab" * 32, **sync: str) -> dict[str, object]:
    margins = {
        "lse_d_than_other_sound": {"mean": 0.25, "interval": [0.2, 0.3]},
        "lse_d_than_untouched": {"mean": -0.125, "interval": None},
        "psnr_than_copied": {"mean": 6.1, "interval": [5.0, 7.0]},
    }
    found = {"metrics": METRICS, "margins": margins, "videos": 8, "people": 2}
    other = {**found, "metrics": {**METRICS, "lse_d": 0.9, "fid": 12.5}}
    return {
        "metrics": METRICS,
        "encoders": [{"encoder": "marlin", **found}, {"encoder": "wav2lip", **other}],
        "networks": {name: {"from": "trained here", "sha256": sha256} for name in ("expert", "judge")},
        "scored": "test",
        "shared_people": 3,
        "not_measured": {"fid": "needs that file"},
        "dataset": load_dataset(dataset_store(cfg)).identity,
        "seed": 0,
        "eval": {"lipsync": {"sync": {"steps": 5, "expert": "", "judge": "", **sync}}},
    }


def test_every_encoder_has_its_row_beside_the_published_one(make_run: MakeRun, tmp_path: Path) -> None:
    run, other = make_run("run.name=mine"), make_run("run.name=bare", steps=())
    [checkpoint] = list_checkpoints(run_store(run))
    publish_result(run_store(run), checkpoint, "lipsync", result(run))
    page = Page((write_report([run, other], tmp_path / "report.html", progress=False)).read_text())
    rows = [row.cells for row in page.rows["labelled"]]
    mine = [cells for cells in rows if cells[0] == "mine" and len(cells) == 11]
    assert [cells[1] for cells in mine] == ["ViT from this checkpoint", "Wav2Lip's convolutions"]
    assert mine[0][2] == "0.712 0.500"
    assert mine[0][4:6] == ["– needs that file", "28.13 dB 22.00 dB"]
    assert mine[1][4] == "12.500"
    assert mine[0][7:9] == ["+0.250 0.200 to 0.300", "-0.125"]
    assert mine[0][9] == "8 test videos of 2 people 3 people also in training judge: trained here, abababababab"
    assert ["bare", "not run"] in rows
    assert "A distance means something only beside others of the same judge" in page.texts["labelled"]
    compared = [row.cells for row in page.rows["comparison"]]
    assert any(cells[0] == "lipsync" and "0.712" in " ".join(cells) for cells in compared)


def test_the_judge_counts_and_not_what_its_file_is_called(make_run: MakeRun) -> None:
    cfg = make_run(steps=())
    first = result(cfg)
    assert unlike(first, result(cfg, steps="6") | {"seed": 1}) == "settings and seed"
    assert unlike(first, result(cfg, expert="a.safetensors", judge="b.safetensors")) == ""
    assert unlike(first, result(cfg, sha256="cd" * 32)) == "judge"


def test_a_sweep_has_no_table_of_scores_by_several_judges(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    members = []
    for seed in (0, 1):
        cfg = make_run("eval.tasks=[lipsync]", f"run.name=seed-{seed}")
        members.append(Member("one", seed, cfg))
    stores = [run_store(member.cfg) for member in members]
    publish_result(stores[0], list_checkpoints(stores[0])[0], "lipsync", result(members[0].cfg))
    assert [table.rows[0].seeds for table in sweep_tables(members)] == [1]
    publish_result(stores[1], list_checkpoints(stores[1])[0], "lipsync", result(members[1].cfg, sha256="cd" * 32))
    assert sweep_tables(members) == []
    assert "lipsync was measured by 2 judges" in caplog.text


def test_decibels_are_told_as_such_whatever_they_are_of() -> None:
    assert gap("copied_psnr", 1.5) == gap("psnr", 1.5) == "1.50 dB"

"""The learning benchmark: its protocol, its results and their tables; training is in test_learning_check.py."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from training import REPOSITORY

from benchmarks.learning import baselines
from benchmarks.learning.__main__ import main
from benchmarks.learning.measure import read_log
from benchmarks.learning.protocol import PRESETS, QUESTIONS, Job, Protocol, load_protocol
from benchmarks.learning.results import all_results, pack, read_result, unpack, whole_results, write_result
from benchmarks.learning.table import best_setting, differences, markdown, put_into, summary
from pipeline.errors import MarlinError, UsageError

SMALL = Path(baselines.__file__).parent / "small.yaml"


def changed(tmp_path: Path, **sections: Any) -> str:
    """The small preset with other sections, as a file."""
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(SMALL.read_text()) | sections))
    return str(path)


def result(variant: str, seed: int, score: float, digest: str = "d") -> dict[str, Any]:
    """A made-up result in which every task has one score, and reconstructions follow from it."""
    shares = {"1": {"macro_auc": score}, "0.1": {"macro_auc": score - 0.1}}
    tasks = {
        f"{asked}-{way}": {"shares": shares} for asked in QUESTIONS for way in ("linear", "places", "knn", "attentive")
    }
    psnr = {"checkpoint": 20 + score, "mean": 15.0, "nearest": 16.0}
    return {
        "digest": digest,
        "stage": "report",
        "variant": variant,
        "seed": seed,
        "tasks": tasks,
        "reconstruction": {"mouth": psnr, "all": psnr},
        "training": {"last": {"mse": 0.01}},
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_whole(preset: str) -> None:
    protocol = load_protocol(preset)
    for job in protocol.jobs("report"):
        cfg = protocol.config_of(job, Path("/data"))
        assert (cfg.train.seed, cfg.eval.seed, cfg.run.name) == (job.seed, job.seed, protocol.run_of(job))
        assert cfg.tracking.uri == "none"
        assert [part.dataset for part in cfg.data.mix] == [f"/data/datasets/{name}" for name in protocol.pretraining]
    for name in protocol.corpora:
        cfg = protocol.corpus_config(name, Path("/data"))
        assert (cfg.corpus.kind == "folder") == (name in protocol.pretraining)


def test_jobs_come_once_and_table_by_table() -> None:
    protocol = load_protocol("small")
    jobs = protocol.jobs("report")
    assert len(set(jobs)) == len(jobs)
    first = protocol.tables["modules"]
    assert {job.variant for job in jobs[: first.seeds * len(first.variants)]} == set(first.variants)
    seeds = {
        variant: [job.seed for job in jobs if job.variant == variant] for variant in ("marlin", "frame", "encoder-l")
    }
    assert seeds == {"marlin": [0, 1, 2, 3, 4], "frame": [0, 1, 2], "encoder-l": [0]}


def test_what_is_reported_was_not_tuned_on() -> None:
    protocol = load_protocol("small")
    tune, report = protocol.stages["tune"], protocol.stages["report"]
    assert not set(tune.seeds) & set(report.seeds)
    assert not set(tune.labelled.values()) & set(report.labelled.values())
    assert not {*tune.labelled.values(), *report.labelled.values()} & set(protocol.pretraining)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"pretraining": ["nobody"]}, "corpus nobody is not among corpora"),
        ({"tables": {"t": {"seeds": 1, "variants": ["a", "marlin"], "against": ["a"]}}}, "variant a is not among"),
        ({"corpora": {name: {"kind": "mosei", "videos": 9, "seed": 1} for name in ("a", "b")}}, "not among corpora"),
        ({"more": 1}, "more"),
    ],
)
def test_a_protocol_that_does_not_fit_itself_is_refused(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_protocol(changed(tmp_path, **sections))


def test_people_and_seeds_are_never_shared(tmp_path: Path) -> None:
    raw = yaml.safe_load(SMALL.read_text())
    raw["corpora"]["tune-acts"]["seed"] = raw["corpora"]["report-acts"]["seed"]
    with pytest.raises(UsageError, match="the same people"):
        load_protocol(changed(tmp_path, corpora=raw["corpora"]))
    raw["stages"]["tune"]["seeds"] = [4]
    with pytest.raises(UsageError, match="tuning must not have seen"):
        load_protocol(changed(tmp_path, stages=raw["stages"]))


def test_the_digest_is_of_all_that_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, protocol = Job("report", "marlin", 0), load_protocol("small")
    before = protocol.digest(job)
    assert load_protocol(changed(tmp_path)).digest(job) == before
    config = dict(protocol.config)
    config["train"] = {**config["train"], "base_lr": 0.1}
    assert load_protocol(changed(tmp_path, config=config)).digest(job) != before
    assert protocol.digest(Job("report", "fasking", 0)) != before
    monkeypatch.setattr("benchmarks.learning.protocol.VERSION", 99)
    assert protocol.digest(job) != before


def test_results_are_packed_and_unpacked(tmp_path: Path) -> None:
    jobs = [Job("report", "marlin", seed) for seed in range(3)]
    for job in jobs:
        (tmp_path / "a").mkdir(exist_ok=True)
        write_result(tmp_path / "a", job, result(job.variant, job.seed, 0.5))
    assert pack(tmp_path / "a", tmp_path / "packed") == 3
    assert unpack(tmp_path / "packed", tmp_path / "b") == 3
    assert all_results(tmp_path / "b", "report") == all_results(tmp_path / "a", "report")
    (tmp_path / "packed").write_text('{"../x.json": {}}')
    with pytest.raises(MarlinError, match="no packed results"):
        unpack(tmp_path / "packed", tmp_path / "b")


def test_a_result_of_another_protocol_is_no_result(tmp_path: Path) -> None:
    job = Job("report", "marlin", 0)
    assert read_result(tmp_path, job, "d") is None
    write_result(tmp_path, job, result("marlin", 0, 0.5))
    assert read_result(tmp_path, job, "d") == result("marlin", 0, 0.5)
    with pytest.raises(UsageError, match="another protocol"):
        read_result(tmp_path, job, "e")


def test_finished_jobs_are_not_done_again(tmp_path: Path) -> None:
    protocol = load_protocol("check")
    for job in protocol.jobs("report"):
        write_result(tmp_path, job, result(job.variant, job.seed, 0.5, protocol.digest(job)))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["run", "-p", "check", "--root", str(tmp_path / "root"), "--out", str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == before


def test_differences_are_paired() -> None:
    fresh, trained = [0.6, 0.7, 0.5], [0.65, 0.77, 0.55]
    results = [result("random", seed, score) for seed, score in enumerate(fresh)]
    results += [result("marlin", seed, score) for seed, score in enumerate(trained)]
    results += [result("marlin", 9, 0.99)]  # without a partner
    row = differences(results, "marlin", "random", "emotion", "linear")
    assert row is not None
    found = np.array(trained) - np.array(fresh)
    half = stats.t.ppf(0.975, 2) * found.std(ddof=1) / 3**0.5
    assert row.difference == pytest.approx(found.mean())
    assert row.interval == pytest.approx((found.mean() - half, found.mean() + half))


def test_tables_are_markdown_of_what_is_there() -> None:
    results = [result("random", seed, 0.6 + seed / 100) for seed in range(2)]
    results += [result("marlin", seed, 0.7 + seed / 50) for seed in range(2)]
    text = markdown(load_protocol("small"), results)
    assert "### Modules" in text
    assert "### Masking" not in text  # one variant of it is there
    assert "### Targets" not in text  # none that "Modules" does not show
    for reading in ("Linear probe", "Linear probe by place"):
        assert f"**{reading}, difference from random, 95% interval**" in text
    assert "| marlin | 2 | 0.710 ± 0.014 |" in text
    assert "| *nearest visible cube* | | 16.00 | 16.00 |" in text
    assert "| marlin | **+0.105** [" in text or "| marlin | +0.105 [" in text


def test_tables_go_into_a_page_again_and_again(tmp_path: Path) -> None:
    page, protocol = tmp_path / "page.md", load_protocol("small")
    results = [result("random", 0, 0.6), result("marlin", 0, 0.7)]
    page.write_text("# Page\n<!-- small -->\nold\n<!-- /small -->\nend\n")
    for _ in range(2):
        put_into(page, protocol, results)
    assert page.read_text() == f"# Page\n<!-- small -->\n\n{markdown(protocol, results)}\n<!-- /small -->\nend\n"
    page.write_text("# Page")
    with pytest.raises(MarlinError, match="has no <!-- small -->"):
        put_into(page, protocol, results)


def test_the_summary_has_every_comparison() -> None:
    results = [result(variant, seed, 0.6) for variant in ("random", "pixels", "marlin") for seed in range(2)]
    found = summary(load_protocol("small"), results)
    rows = found["modules"]["few"]["pixels"]["emotion"]
    assert [row["variant"] for row in rows] == ["pixels", "random", "marlin"]
    assert [row["difference"] for row in rows] == [None, 0, 0]
    assert found["critics"]["linear"]["fasking"]["emotion"] == []


def test_logs_are_thinned_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    rows = [{"step": step, "train/mse": 1 / step, "train/skipped_steps": 0} for step in range(1, 101)]
    path.write_text("\n".join(["no JSON", *map(json.dumps, rows), '{"message": "saved"}']))
    found = read_log(path)
    assert (found["steps"][0], found["steps"][-1]) == (1, 100)
    assert len(found["steps"]) == 24
    assert found["last"]["mse"] == pytest.approx(np.mean([1 / step for step in range(91, 101)]))
    path.write_text("nothing")
    with pytest.raises(MarlinError, match="no line of a step"):
        read_log(path)


def test_baselines_see_colour_and_time() -> None:
    frames = np.zeros((2, 4, 32, 32, 3), np.uint8)
    frames[1, 2, :, :16, 0] = 255
    found = baselines.pixels(frames)
    assert found.shape == (2, 768)
    assert found[0].max() == 0
    assert found[1].reshape(16, 16, 3)[0, 0, 0] == pytest.approx(0.25)
    means = baselines.statistics(frames).reshape(2, 4, 6)
    assert means[1, 2] == pytest.approx([0.5, 0, 0, 0.5, 0, 0])
    assert means[1, [0, 1, 3]].max() == 0


@pytest.mark.slow
def test_training_and_measuring_need_no_ray_dali_or_database() -> None:
    """Datasets are made elsewhere; the machine with the GPU may have nothing else."""
    absent = ["ray", "insightface", "nvidia.dali", "sqlalchemy", "alembic", "mlflow", "onnxruntime", "av"]
    code = f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
    code += "import benchmarks.learning.measure, benchmarks.learning.jobs, benchmarks.learning.table\n"
    code += "import deepspeed, train.loop, pipeline.tracking\n"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "DS_ACCELERATOR": "cpu"}, cwd=REPOSITORY
    )


def test_the_protocol_for_a_gpu_asks_what_the_small_one_asks() -> None:
    small, full = load_protocol("small"), load_protocol("full")
    assert full.jobs("report") == small.jobs("report")
    assert full.jobs("tune") == small.jobs("tune")
    job = Job("report", "ratio-0.5", 0)
    here, there = (protocol.config_of(job, Path("/")) for protocol in (small, full))
    assert there.data.mask == here.data.mask
    assert (there.model.size, there.data.frames, there.preprocess.size) == ("small", 16, 224)


def test_the_check_is_for_one_variant(tmp_path: Path) -> None:
    assert main(["check", "-p", "small", "--root", str(tmp_path / "root")]) == 2
    assert not (tmp_path / "root").exists()


def test_a_protocol_without_a_stage_says_so() -> None:
    protocol: Protocol = load_protocol("check")
    with pytest.raises(UsageError, match="has no stage 'tune'"):
        protocol.jobs("tune")


def test_tokens_of_a_training_are_measured_apart_and_shown_with_it(tmp_path: Path) -> None:
    protocol = load_protocol("small")
    report, tokens = Job("report", "marlin", 1), Job("tokens", "marlin", 1)
    assert protocol.config_of(tokens, Path("/")) == protocol.config_of(report, Path("/"))
    assert protocol.digest(tokens) != protocol.digest(report)
    quick = result("marlin", 1, 0.7)
    slow = {name: quick["tasks"].pop(name) for name in list(quick["tasks"]) if name.endswith("attentive")}
    write_result(tmp_path, report, quick)
    assert whole_results(tmp_path, protocol, "report") == [quick]
    write_result(tmp_path, tokens, quick | {"stage": "tokens", "tasks": slow})
    assert whole_results(tmp_path, protocol, "report") == [result("marlin", 1, 0.7)]


def tried(setting: str, variant: str, score: float) -> dict[str, Any]:
    """A made-up result of tuning."""
    return result(variant, 100, score) | {"stage": "tune", "setting": setting}


def test_the_best_setting_is_the_best_on_the_mean() -> None:
    protocol = load_protocol("small")
    assert protocol.search
    names = list(protocol.search.settings)
    results = [tried(name, variant, 0.6) for name in names for variant in protocol.search.variants]
    results += [tried(names[2], "videomae", 0.8)]
    best, scores = best_setting(protocol, results)
    assert best == names[2]
    assert scores[best] == pytest.approx((0.6 + 0.6 + 0.8) / 3)
    with pytest.raises(MarlinError, match=f"setting {names[0]} of protocol small has no result"):
        best_setting(protocol, [one for one in results if one["setting"] != names[0]])


def test_a_chosen_setting_holds_for_every_variant(tmp_path: Path) -> None:
    protocol = load_protocol("small")
    assert protocol.search
    name = next(name for name in protocol.search.settings if name != protocol.chosen)
    chosen = protocol.model_copy(update={"chosen": name})
    job = Job("report", "marlin", 0)
    assert chosen.digest(job) != protocol.digest(job)
    assert load_protocol(changed(tmp_path, chosen=name)).digest(job) == chosen.digest(job)
    assert main(["run", "--chosen", "nothing", "--out", str(tmp_path), "--root", str(tmp_path)]) == 2
    with pytest.raises(UsageError, match="setting nothing is not among"):
        load_protocol(changed(tmp_path, chosen="nothing"))


def test_tuning_tries_every_setting_and_nothing_else_is_tuned_on() -> None:
    protocol = load_protocol("small")
    assert protocol.search
    jobs = protocol.jobs("tune")
    pairs = {(job.setting, job.variant) for job in jobs if job.trained}
    assert pairs == {(name, variant) for name in protocol.search.settings for variant in protocol.search.variants}
    assert len({job.name for job in jobs}) == len(jobs)

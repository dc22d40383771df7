"""The report: one file, everything in it, nothing from outside, nothing made up."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_runs import MakeRun, publish
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pages import Page
from synthetic import DrawnTrack

from eval.heads import HEAD, Head, publish_head
from eval.job import eval_config, run_eval
from eval.loading import open_checkpoint
from eval.pictures import HIDDEN, column, grid_labels, mask_frame
from eval.report.charts import Series, line_chart, nice_ticks, short_number, thinned
from eval.report.figures import track_clips
from eval.report.model_figures import model_figures
from eval.report.page import duration, write_report
from eval.report.statistics import HeldOut, dataset_statistics
from eval.results import publish_result
from pipeline.checkpoints import list_checkpoints
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store, run_store
from pipeline.storage.manifest import to_json
from pipeline.tracking import open_tracker

SECTIONS = [
    *("dataset", "samples", "masks", "training", "reconstruction", "strategies", "attention", "results"),
    *("labelled", "comparison", "provenance"),
]
EVIL = "<script>alert(1)</script>&.mp4"


@pytest.fixture
def evaluated(make_run: MakeRun, tmp_path: Path) -> Page:
    """The report of a run with everything done, one of whose videos has a hostile name."""
    cfg = make_run(tracks=[DrawnTrack("anna.mp4"), DrawnTrack(EVIL)])
    with open_tracker(cfg, run_store(cfg), tmp_path / "spool") as tracker:
        for step in range(1, 21):
            tracker.log_metrics({"train/mse": 1 / step, "train/lr": 0.001 * step}, step)
        tracker.log_metrics({"val/mse": 0.07}, 20)
    run_eval(cfg, progress=False)
    return Page(write_report([cfg], tmp_path / "report.html", progress=False).read_text("utf-8"))


def test_the_report_is_complete_self_contained_and_escaped(evaluated: Page, tmp_path: Path) -> None:
    raw = (tmp_path / "report.html").read_text("utf-8")
    assert evaluated.ids == SECTIONS
    assert all(link.startswith(("data:", "#")) for link in evaluated.links)
    assert "script" not in evaluated.tags
    assert "@import" not in raw
    assert "url(" not in raw
    assert EVIL in evaluated.text
    assert EVIL not in raw
    # 2 tracks × 6 frames, 4 strategies × 8 tubelets of masks and of reconstructions, 2 held-out clips × 8 tubelets of
    # reconstructions and of attention
    assert len(evaluated.images) == 2 * 6 + 2 * 4 * 8 + 2 * 2 * 8
    assert all(
        image["alt"] and (image["src"] or "").startswith("data:image/jpeg;base64,") for image in evaluated.images
    )
    assert evaluated.tags.count("svg") == 2  # the error with its held-out line, and the learning rate
    assert evaluated.text.count("not recorded") == 4
    assert [section for section in SECTIONS if "not run" in evaluated.texts[section]] == ["labelled", "comparison"]
    for said in ("same network, untrained", "raw pixels", "Parser: drawn", "step-00000020.r0", "mlflow ui", "torch"):
        assert said in evaluated.text


def test_a_run_that_diverged_has_a_report(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run(steps=())
    with open_tracker(cfg, run_store(cfg), tmp_path / "spool") as tracker:
        tracker.log_metrics({"train/mse": math.nan, "train/lr": 0.5}, 1)
    page = Page(write_report([cfg], tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert page.tags.count("svg") == 1
    assert page.texts["training"].count("no finite value was recorded") == 1
    assert page.texts["training"].count("not recorded") == 4


def test_what_was_not_done_is_called_so(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run(steps=())
    page = Page(write_report([cfg], tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert page.ids == SECTIONS
    assert "no checkpoint has been published" in page.text
    assert page.text.count("not run: no checkpoint has been published") == 3
    assert "Where attributes are found" not in page.text
    assert "svg" not in page.tags


def test_several_runs_stand_side_by_side(make_run: MakeRun, tmp_path: Path) -> None:
    cfgs = [make_run("run.name=one", "eval.tasks=[reconstruction]"), make_run("run.name=two", steps=())]
    run_eval(cfgs[0], progress=False)
    page = Page(write_report(cfgs, tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert "one: accuracy" in page.text
    assert "two: accuracy" in page.text
    assert "Resolved configuration of two" in page.text


@pytest.mark.parametrize(("runs", "said"), [(6, False), (7, True)])
def test_runs_that_share_a_colour_are_called_so(make_run: MakeRun, tmp_path: Path, runs: int, said: bool) -> None:
    cfgs = [make_run(f"run.name=run-{number}", steps=()) for number in range(runs)]
    page = Page(write_report(cfgs, tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert ("Colours repeat from the seventh run on" in page.texts["training"]) is said


def test_a_dataset_without_label_maps_and_held_out_part(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run(tracks=[DrawnTrack("anna.mp4", val=())])
    page = Page(write_report([cfg], tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert page.text.count("not run: the dataset has no held-out samples") == 3
    assert "Nothing is held out." in page.texts["dataset"]


@pytest.mark.parametrize(
    ("tracks", "said", "of_clips"),
    [
        (
            [DrawnTrack("anna.mp4"), DrawnTrack("berta.mp4")],
            "Of 2 of the 2 videos with held-out samples, other frames are trained on.",
            "These frames were never trained on, other frames of the same videos were.",
        ),
        (
            [DrawnTrack("anna.mp4", val=()), DrawnTrack("berta.mp4", train=())],
            "No video with held-out samples is trained on, nor is another one of the same people",
            "These frames were never trained on, nor was anything else of these videos.",
        ),
        (
            [DrawnTrack("anna.mp4"), DrawnTrack("berta.mp4", train=())],
            "Of 1 of the 2 videos with held-out samples, other frames are trained on.",
            "These frames were never trained on, other frames of some of the same videos were.",
        ),
    ],
    ids=["ends of tracks", "people", "both"],
)
def test_what_is_held_out_is_told_of_this_dataset(
    make_run: MakeRun, tmp_path: Path, tracks: Sequence[DrawnTrack], said: str, of_clips: str
) -> None:
    cfg = make_run(tracks=tracks, steps=())
    page = Page(write_report([cfg], tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert said in page.texts["dataset"]
    assert of_clips in page.texts["reconstruction"]
    assert "end of each track" not in page.text


def test_people_held_out_in_one_video_and_trained_on_in_another_are_counted(make_run: MakeRun) -> None:
    cfg = make_run(tracks=[DrawnTrack("anna.mp4", val=()), DrawnTrack("again.mp4", train=())], steps=())
    dataset = load_dataset(dataset_store(cfg))
    one = replace(dataset, samples=tuple(replace(sample, identity="anna") for sample in dataset.samples))
    assert dataset_statistics(one, dataset_store(cfg)).held_out == HeldOut(1, 0, 1, 1)


def test_a_strategy_does_to_a_clip_what_a_run_of_it_does(make_run: MakeRun, tmp_path: Path) -> None:
    """Two runs with the same weights: the one's row of the other's strategy is the other's own reconstruction."""
    texts = {}
    for strategy in ("fasking", "tube"):
        cfg = make_run(f"run.name={strategy}", f"data.mask.strategy={strategy}", steps=())
        publish(cfg, 7, tmp_path / strategy)
        texts[strategy] = Page(write_report([cfg], tmp_path / "r.html", progress=False).read_text("utf-8")).text
        assert f"{strategy.capitalize()} (used in this run) This clip:" in texts[strategy]
    for strategy, other in (("fasking", "tube"), ("tube", "fasking")):
        own = re.findall(r"this clip: (MSE [\d.]+, PSNR [\d.]+ dB)", texts[strategy])
        [one, both] = re.findall(
            rf"{strategy.capitalize()} This clip: (MSE .*? dB)\. The 2 clips above: (MSE .*? dB)\.", texts[other]
        )[0]
        assert own[0] == one
        assert one != both
    assert own != re.findall(r"this clip: (MSE [\d.]+, PSNR [\d.]+ dB)", texts["fasking"])


def test_the_best_answered_attributes_are_drawn_on_the_clip_that_shows_them_most(
    make_run: MakeRun, tmp_path: Path
) -> None:
    cfg = make_run()
    run, store = run_store(cfg), dataset_store(cfg)
    [checkpoint] = list_checkpoints(run)
    dataset = load_dataset(store)
    with open_checkpoint(run, checkpoint) as (model, trained):
        batch = track_clips(eval_config(cfg, trained), dataset, store, 2)
        anna_D, berta_D = model.encode(batch.clips_BCTHW, pool=True).detach()
    names = ("a/anna", "a/berta", "a/middling", "a/poor", "a/worst", "a/unmeasured")
    sides = torch.tensor([1, -1, 1, 1, 1, 1])
    weight = sides[:, None] * (anna_D - berta_D)
    name = publish_head(run, checkpoint, "attributes", Head(names, weight, -weight @ (anna_D + berta_D) / 2))
    publish_result(run, checkpoint, "attributes", {"metrics": {}, HEAD: name})
    areas = {name: {"auc": area} for name, area in zip(names, (0.7, 0.9, 0.65, 0.6, 0.5, None), strict=True)}
    results = {"attributes": {"per_label": areas}, "headless": {"per_label": {"a/x": {"auc": 1.0}}}, "undone": None}
    found = model_figures(cfg, run, checkpoint, dataset, store, results=results).attributes
    assert [figure.title for figure in found] == ["a/berta", "a/anna", "a/middling", "a/poor"]
    half = float((anna_D - berta_D).square().sum()) / 2
    for figure, area, shown in zip(found, (0.9, 0.7), ("berta", "anna"), strict=False):
        assert figure.caption == (
            f"attributes, AUC {area:.2f}. Shown: {shown}.mp4 · track 0, where its score is {half:+.2f}."
        )
        assert len(figure.pictures) == 8
    # The page takes them from the results that are there.
    name = publish_head(run, checkpoint, "track-probe", Head(names[:1], weight[:1], torch.zeros(1)))
    run_eval(cfg, progress=False)
    key = f"evals/{checkpoint.name}/track-probe.json"
    run.write(key, to_json(json.loads(run.read(key)) | {"per_label": areas, HEAD: name}))
    page = Page(write_report([cfg], tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert "Where attributes are found" in page.text
    assert "a/anna track-probe, AUC 0.70. Shown: anna.mp4" in page.text
    assert "a/berta" not in page.text


def test_a_report_of_nothing_and_a_place_that_is_taken(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    cfg = make_run(steps=())
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(MarlinError, match=r"taken/report.html: a part of this path is a file, not a folder"):
        write_report([cfg], tmp_path / "taken" / "report.html", progress=False)
    (tmp_path / "pages" / "report.html").mkdir(parents=True)
    with pytest.raises(MarlinError, match=r"report.html: this is a folder where a file is needed"):
        write_report([cfg], tmp_path / "pages" / "report.html", progress=False)
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["report.html"]


def test_chart_lines_stay_inside_and_skip_what_is_not_finite() -> None:
    svg = line_chart("t<", [Series("a&b", [(0, 1.0), (5, float("nan")), (10, 3.0)]), Series("v", [(10, 2.0)], 1, True)])
    assert "t&lt;" in svg
    assert "a&amp;b" in svg
    [points, _] = re.findall(r'points="([^"]+)"', svg)
    places = [tuple(float(v) for v in pair.split(",")) for pair in points.split()]
    assert len(places) == 2
    assert all(0 <= x <= 360 and 0 <= y <= 210 for x, y in places)
    assert places[0][1] > places[1][1]  # larger values are higher up
    with pytest.raises(ValueError, match="nothing to draw"):
        line_chart("empty", [Series("a", [(0, float("inf"))])])


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-0.06, 0.0), (1e-6, 3e-6), (5.0, 5.0), (0.0, 0.0), (3.0, 98765.0)]
)
def test_ticks_enclose_the_data_and_are_few(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200), st.integers(4, 30))
def test_a_thinned_line_keeps_its_ends_and_its_range(values: list[float], most: int) -> None:
    points = list(enumerate(values))
    kept = thinned(points, most)
    assert len(kept) <= most
    assert kept == [point for point in points if point in kept]
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert {min(values), max(values)} <= {value for _, value in kept}
    assert len(points) > most or kept == points


def test_a_long_run_makes_a_small_chart() -> None:
    """A single spike among many steps is still drawn, up to the top of the frame."""
    points = [(step, 60.0 if step == 123_456 else 1 + math.sin(step)) for step in range(300_000)]
    drawn = line_chart("t", [Series("a", points)])
    assert len(drawn) < 20_000
    assert min(float(pair.split(",")[1]) for pair in re.findall(r"[\d.]+,[\d.]+", drawn)) == 10.0


@given(st.floats(-1e38, 1e38, allow_subnormal=False), st.floats(0, 2), st.sampled_from((1.0, 1e-6, 1e-16)))
@example(0.3, 2.0, 1e-16)
@example(1e-14, 0.0, 1.0)
def test_ticks_ascend_around_any_two_values(low: float, share: float, part: float) -> None:
    assume(low == 0 or abs(low) > 1e-30)
    high = low + abs(low) * share * part
    ticks = nice_ticks(low, high)
    within = 1e-8 * abs(low)
    assert ticks[0] <= low + within
    assert ticks[-1] >= high - within
    assert 2 <= len(ticks) <= 7
    assert all(one < other for one, other in pairwise(ticks))
    drawn = line_chart("t", [Series("a", [(0, low), (1, high)])])
    assert "nan" not in drawn


def test_tick_labels_are_short() -> None:
    numbers = (0.0, 0.00025, -1.5e-7, 0.75, 1234.5, 2.5e6)
    assert [short_number(value) for value in numbers] == ["0", "2.5e-4", "-1.5e-7", "0.75", "1234.5", "2.5e6"]


def test_durations_read_naturally() -> None:
    assert [duration(s) for s in (15.36, 150, 7200)] == ["15.4 s", "2.5 min", "2.0 h"]


def test_masked_frames_show_only_what_is_visible() -> None:
    frame = np.full((4, 4, 3), 10, np.uint8)
    shown = mask_frame(frame, np.array([[True, False], [False, False]]))
    assert (shown[:2, :2] == 10).all()
    assert (shown[2:] == HIDDEN).all()
    assert (shown[:2, 2:] == HIDDEN).all()


def test_a_patch_of_several_regions_shows_the_last() -> None:
    labels = grid_labels(np.array([[0b11, 0b1000001], [0, 0b100]], np.uint8), 4)
    assert labels[0, 0] == 1
    assert labels[0, 3] == 6
    assert labels[3, 0] == 0
    assert labels[3, 3] == 2


def test_columns_have_the_asked_width() -> None:
    assert column([np.zeros((8, 8, 3), np.uint8)] * 3, 16).shape == (3 * 16 + 2 * 3, 16, 3)

"""The report: one file, everything in it, nothing from outside, nothing made up."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from drawn_runs import MakeRun
from synthetic import DrawnTrack

from eval.job import run_eval
from eval.pictures import HIDDEN, column, grid_labels, mask_frame
from eval.report.charts import Series, line_chart, nice_ticks, short_number
from eval.report.page import duration, write_report
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store
from pipeline.tracking import open_tracker

SECTIONS = ["dataset", "samples", "masks", "training", "reconstruction", "results", "provenance"]
EVIL = "<script>alert(1)</script>&.mp4"


class Page(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "section":
            self.ids.append(found["id"] or "")
        if tag == "img":
            self.images.append(found)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def evaluated(make_run: MakeRun, tmp_path: Path) -> Page:
    """The report of a run with everything done, one of whose videos has a hostile name."""
    cfg = make_run(tracks=[DrawnTrack("anna.mp4"), DrawnTrack(EVIL)])
    with open_tracker(cfg, run_store(cfg)) as tracker:
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
    # 2 tracks × 6 frames, 4 strategies × 8 tubelets, 2 held-out clips × 8 tubelets
    assert len(evaluated.images) == 2 * 6 + 4 * 8 + 2 * 8
    assert all(
        image["alt"] and (image["src"] or "").startswith("data:image/jpeg;base64,") for image in evaluated.images
    )
    assert evaluated.tags.count("svg") == 2  # the error with its held-out line, and the learning rate
    assert evaluated.text.count("not recorded") == 4
    assert "not run" not in evaluated.text
    for said in ("same network, untrained", "raw pixels", "Parser: drawn", "step-00000020.r0", "mlflow ui", "torch"):
        assert said in evaluated.text


def test_what_was_not_done_is_called_so(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run(steps=())
    page = Page(write_report([cfg], tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert page.ids == SECTIONS
    assert "no checkpoint has been published" in page.text
    assert page.text.count("not run") >= 4
    assert "svg" not in page.tags


def test_several_runs_stand_side_by_side(make_run: MakeRun, tmp_path: Path) -> None:
    cfgs = [make_run("run.name=one", "eval.tasks=[reconstruction]"), make_run("run.name=two", steps=())]
    run_eval(cfgs[0], progress=False)
    page = Page(write_report(cfgs, tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert "one: accuracy" in page.text
    assert "two: accuracy" in page.text
    assert "Resolved configuration of two" in page.text


def test_a_dataset_without_label_maps_and_held_out_part(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run(tracks=[DrawnTrack("anna.mp4", val=())])
    page = Page(write_report([cfg], tmp_path / "report.html", progress=False).read_text("utf-8"))
    assert "not run: the dataset has no held-out samples" in page.text


def test_a_report_of_nothing_and_a_place_that_is_taken(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    cfg = make_run(steps=())
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(MarlinError, match="can't write the report"):
        write_report([cfg], tmp_path / "taken" / "report.html", progress=False)


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

"""`marlin dataset stats` and `show`: what people and machines read of a dataset."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_dataset import Drawn, drawn_section, write_drawn, written

from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.layout import dataset_store
from preprocess.dataset.removal import remove_sources

SCHEMA = {
    "smile": {"type": "binary", "names": ["open", "shut"]},
    "mood": {"type": "real", "range": [-3, 3]},
    "method": {"type": "class", "names": ["real", "fake"]},
    "place": {"type": "class", "names": [f"p{number}" for number in range(900)]},
}
BAD = "a very long name of a source, as they come from the web 0123456789.mp4"
UNITS = [
    [
        Drawn("a.mp4", "anna", face=1, labels={"smile": [0, 1], "mood": 0.5, "method": "real"}),
        Drawn("b.mp4", "bert", face=60, labels={"smile": [1, 1], "mood": 1.0, "method": "fake"}),
    ],
    [Drawn(BAD, bad="no-face")],
    [Drawn("c\nd.mp4", "anna", face=3, split="val", labels={"method": "real"}), Drawn("gone.mp4", face=5)],
    [Drawn("x.mp4", face=7, samples=9), Drawn("x copy.mp4", face=7, samples=9)],
]


@pytest.fixture
def command(make_config: Callable[..., Config], tmp_path: Path) -> Callable[..., int]:
    cfg = drawn_section(make_config, tmp_path / "raw", tmp_path / "out")
    store = dataset_store(cfg)
    write_drawn(store, cfg, UNITS, labels=SCHEMA, pending=[[Drawn("later.mp4")]])
    remove_sources(store, ["gone.mp4"], [], "withdrew")
    config = written(tmp_path, cfg)
    return lambda verb, *arguments: main(["dataset", verb, "-c", config, *arguments])


def test_stats_for_people_fit_80_columns(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("stats") == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()[1:]) <= 80
    for text in (
        "6, of them 1 quarantined",
        "15 with 60 frames",
        "train 13 (3 identities)",
        "val 2 (1 identity)",
        "short 5",
        "9 near-duplicate samples",
        "1 source: withdrew",
        "no-face 1",
        "… 0123456789.mp4: as drawn",
        "smile (binary, 2 sources): open: 1, shut: 2",
        "mood (real, 2 sources): mean 0.75",
        "method (class, 3 sources): real: 2, fake: 1",
        "place (class, 0 sources): p0: 0, p1: 0",
        "p49: 0 … and 850 more",
        "96-127 px",
        "video         3.8 seconds",
        "faces         2.4 seconds in 4 tracks",
        "face side and regions on 15 of 15 samples",
    ):
        assert text in out, text


def test_stats_for_machines_are_json(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("stats", "--json", "--samples", "3") == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["counts"]["samples"] == 15
    assert stats["video_seconds"] == pytest.approx((3 * 2 + 2 * 9) * 4 / 25)
    assert stats["face_seconds"] == pytest.approx(15 * 4 / 25)
    assert stats["measured"]["samples"] == 3
    assert sum(stats["measured"]["face_side"].values()) == 12
    assert stats["measured"]["regions"]["nose"]["frames"] == 1.0
    assert 0 < stats["measured"]["regions"]["nose"]["patches"] < stats["measured"]["regions"]["skin"]["patches"] < 1
    assert stats["labels"]["smile"] == {"type": "binary", "sources": 2, "positives": {"open": 1, "shut": 2}}
    assert stats["labels"]["method"]["classes"] == {"real": 2, "fake": 1}


def test_stats_without_a_measurement_show_none(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("stats", "--samples", "0") == 0
    out = capsys.readouterr().out
    assert "face side and regions on 0 of 15 samples" in out
    for text in ("px", "of patches", "%"):
        assert text not in out
    assert command("stats", "--samples", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["measured"] == {"samples": 0, "face_side": {}, "regions": {}}


def test_json_keeps_the_order_of_the_sizes(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("stats", "--json") == 0
    sizes = [int(low) for low in json.loads(capsys.readouterr().out)["measured"]["face_side"]]
    assert sizes == sorted(sizes)


def test_stats_of_an_empty_dataset(make_config: Callable[..., Config], tmp_path: Path) -> None:
    cfg = drawn_section(make_config, tmp_path / "raw", tmp_path / "empty")
    store = dataset_store(cfg)
    write_drawn(store, cfg, [[Drawn("a.mp4")]])
    remove_sources(store, ["a.mp4"], [], "withdrew")
    assert main(["dataset", "stats", "-c", written(tmp_path, cfg)]) == 0
    assert main(["dataset", "show", "-c", written(tmp_path, cfg)]) == 1


@pytest.mark.parametrize(
    ("chosen", "drawn"),
    [
        ((), 8),
        (("--count", "3"), 3),
        (("--key", "000000-s000-t00-000004", "--key", "000002-s000-t00-000000"), 2),
        (("--source", "x.mp4"), 8),
        (("--source", "b.mp4"), 2),
    ],
)
def test_show_draws_what_is_chosen(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: tuple[str, ...], drawn: int
) -> None:
    out = tmp_path / "sheet.png"
    assert command("show", "-o", str(out), *chosen) == 0
    assert f": {drawn} samples" in capsys.readouterr().out
    sheet = cv2.imread(str(out))
    assert sheet is not None
    assert sheet.shape == (24 + drawn * (24 + 2 * 160), 8 * 160, 3)
    frames, tinted = sheet[48:208], sheet[208:368]
    assert np.abs(frames.astype(int) - tinted).mean() > 3


@pytest.mark.parametrize(
    ("chosen", "status", "message"),
    [
        (("--count", "0"), 2, "--count 0: draw 1 to 256 samples"),
        (("-o", "samples.jpg"), 2, "-o samples.jpg: a PNG is written: let the name end in .png"),
        (("--count", "257"), 2, "--count 257: draw 1 to 256 samples"),
        (("--key", "nobody"), 2, "holds no sample 'nobody' (one that it holds: '000000-s000-t00-000000')"),
        (("--source", "x.mp"), 2, "holds no source 'x.mp' (nearest: 'x.mp4'"),
        (("--source", "b.mp4", "--source", "nobody"), 2, "holds no source 'nobody'"),
        (("--source", "gone.mp4"), 1, "source 'gone.mp4' was taken out of the dataset: withdrew"),
        (("--source", BAD), 1, f"source {BAD!r} is quarantined and has no samples: no-face (as drawn)"),
        (("--source", "x copy.mp4"), 1, "all samples of source 'x copy.mp4' are left out as near-duplicates"),
        (("--key", "000003-s001-t00-000000"), 1, "is left out as a near-duplicate of 000003-s000-t00-000000: draw"),
        (("--source", "later.mp4"), 1, "source 'later.mp4' is planned and not in the dataset yet: run `marlin"),
    ],
)
def test_show_says_why_it_can_not_draw(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], chosen: tuple[str, ...], status: int, message: str
) -> None:
    assert command("show", *chosen) == status
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1

"""`marlin dataset show --masks`: the picture shows what training would hide."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn import drawn_unparsed
from drawn_runs import MakeRun
from training import write_config

from eval.mask_picture import COLUMNS, NAMES, SIDE, STRATEGIES
from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.dataset import Sample, load_dataset
from pipeline.layout import dataset_store
from preprocess.sheet import GAP, LINE
from train.hashing import sample_hash, signed
from train.masking import make_mask

GRID, STEP = 4, SIDE + GAP
HEAD = 3 * LINE
SHEET = 2 * LINE + (2 + len(STRATEGIES)) * STEP


def drawn(cfg: Config, folder: Path, *arguments: str) -> np.ndarray:
    """The picture (H, W, 3) RGB that the command writes."""
    out = folder / "masks.png"
    assert (
        main(["dataset", "show", "--masks", "-c", write_config(cfg, folder / "c.yaml"), "-o", str(out), *arguments])
        == 0
    )
    picture = cv2.imread(str(out))
    assert picture is not None
    return picture[..., ::-1].astype(int)


def cells(picture: np.ndarray, row: int) -> np.ndarray:
    """The patches of a row of pictures: (columns, grid, grid, pixels, 3)."""
    top, patch = HEAD + row * STEP, SIDE // GRID
    pictures = [picture[top : top + SIDE, NAMES + c * STEP : NAMES + c * STEP + SIDE] for c in range(COLUMNS)]
    split = np.stack(pictures).reshape(COLUMNS, GRID, patch, GRID, patch, 3)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(COLUMNS, GRID, GRID, patch**2, 3)


def centre_regions(cfg: Config, sample: Sample) -> torch.Tensor:
    """Region bitmasks (1, T, N) of the first frame of each tubelet of the middle clip."""
    data = dataset_store(cfg).read_range(sample.shard, *sample.parts["regions.npy"])
    start = (sample.frames - 15 * cfg.data.stride - 1) // 2
    first = np.load(io.BytesIO(data))[start : start + 16 * cfg.data.stride : 2 * cfg.data.stride]
    return torch.from_numpy(first).flatten(1)[None]


def test_what_is_visible_is_what_training_would_see(make_run: MakeRun, tmp_path: Path):
    cfg = make_run("data.mask.ratio=0.7", steps=())
    picture = drawn(cfg, tmp_path)
    assert picture.shape == (LINE + SHEET, NAMES + COLUMNS * STEP, 3)
    sample = load_dataset(dataset_store(cfg)).samples[0]
    frames, tinted = cells(picture, 0), cells(picture, 1)
    assert np.abs(frames - tinted).mean() > 3
    hash_B = torch.tensor([signed(sample_hash(cfg.eval.seed, 0, sample.key))])
    for row, strategy in enumerate(STRATEGIES):
        mask = make_mask(strategy, centre_regions(cfg, sample), hash_B, ratio=0.7, rounding="official")
        visible = mask.view(COLUMNS, GRID, GRID).numpy()
        shown = cells(picture, 2 + row)
        assert np.array_equal(shown[visible], frames[visible]), strategy
        # The hidden part is nearly all grey: what shines through is faint.
        assert np.abs(shown[~visible] - 128).max() <= 20, strategy
        assert np.abs(frames[~visible] - 128).mean() > 40


@pytest.mark.parametrize(
    ("arguments", "clips"), [(("--count", "3"), 3), (("--source", "berta.mp4", "--count", "9"), 4), ((), 1)]
)
def test_clips_are_chosen_as_samples_are(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], clips: int
):
    picture = drawn(make_run(steps=()), tmp_path, *arguments)
    assert len(picture) == LINE + clips * SHEET
    assert f"masks.png: {clips} sample" in capsys.readouterr().out


def test_clips_of_few_frames_leave_room_for_the_words(make_run: MakeRun, tmp_path: Path):
    picture = drawn(make_run("data.frames=4", steps=()), tmp_path)
    assert picture.shape == (LINE + SHEET, 960, 3)
    titles = picture[LINE : 2 * LINE]
    assert (titles[:, -24:] == picture[0, -1]).all()  # they end before the edge


def test_unparsed_frames_are_named(make_run: MakeRun, tmp_path: Path):
    cfg = make_run(steps=())
    unparsed = drawn_unparsed(tmp_path / "unparsed")
    titles = [
        drawn(cfg.model_copy(update={"data": cfg.data.model_copy(update={"dataset": url})}), tmp_path)[LINE : 2 * LINE]
        for url in (dataset_store(cfg).url, unparsed.store.url)
    ]
    inked = [int(np.flatnonzero((title != title[0, -1]).any(axis=(0, 2)))[-1]) for title in titles]
    assert inked[1] > inked[0] + 100


def test_a_model_of_coarser_patches_is_drawn_with_its_own(make_run: MakeRun, tmp_path: Path):
    cfg = make_run("model.patch=16", steps=())
    frames, masked = (cells(drawn(cfg, tmp_path), row) for row in (0, 2))
    seen = (frames == masked).all(axis=(3, 4)).reshape(COLUMNS, 2, 2, 2, 2)
    assert (seen == seen[:, :, :1, :, :1]).all()  # two by two stored patches are one of the model's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", "0"), "--count 0"),
        (("--key", "nobody"), "the dataset holds no sample 'nobody'"),
        (("preprocess.patch=2", "model.patch=2"), "region grid of 4 does not divide into the model's 16"),
    ],
)
def test_what_is_not_there_is_refused(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
):
    config = write_config(make_run(steps=()), tmp_path / "c.yaml")
    assert main(["dataset", "show", "--masks", "-c", config, "-o", str(tmp_path / "m.png"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_samples_that_are_all_too_short_are_an_error(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cfg = make_run("preprocess.clip_frames=64", "preprocess.min_frames=64", "data.frames=34", steps=())
    assert main(["dataset", "show", "--masks", "-c", write_config(cfg, tmp_path / "c.yaml")]) == 1
    assert "no sample of" in capsys.readouterr().err

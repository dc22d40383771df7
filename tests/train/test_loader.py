"""The loader against OpenCV and against itself: exact pixels, exact resumption, damage found and named."""

import sys
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn import Drawn, MakeConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import DrawnTrack, write_dataset

from pipeline.config.schema import Config
from pipeline.dataset import Sample, load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import open_store
from train.data.batch import Batch
from train.data.loader import fixed_clips, open_loader, steps_per_epoch, total_steps
from train.data.regions import mirror_regions
from train.data.shards import jpeg_header

DECODERS = ["dali", "opencv"]


def take(cfg: Config, drawn: Drawn, count: int, *, rank: int = 0, world: int = 1, consumed: int = 0) -> list[Batch]:
    """The first micro batches of a rank."""
    place = {"rank": rank, "world": world, "consumed": consumed}
    with open_loader(cfg, drawn.dataset, drawn.store, split="train", **place) as loader:
        return [next(loader) for _ in range(count)]


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.clips_BCTHW, other.clips_BCTHW)
        and torch.equal(one.regions_BTHW, other.regions_BTHW)
        and torch.equal(one.hash_B, other.hash_B)
        and (one.keys, one.starts, one.flips) == (other.keys, other.starts, other.flips)
    )


def joined(batches: list[Batch]) -> Batch:
    return Batch(
        torch.cat([batch.clips_BCTHW for batch in batches]),
        torch.cat([batch.regions_BTHW for batch in batches]),
        torch.cat([batch.hash_B for batch in batches]),
        tuple(key for batch in batches for key in batch.keys),
        tuple(start for batch in batches for start in batch.starts),
        tuple(flip for batch in batches for flip in batch.flips),
    )


def opencv_frame(drawn: Drawn, sample: Sample, frame: int) -> np.ndarray:
    """RGB pixels of a frame, read by key through the store and decoded by OpenCV."""
    data = drawn.store.read_range(sample.shard, *sample.parts[f"{frame:03d}.jpg"])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def stored_regions(drawn: Drawn, sample: Sample) -> np.ndarray:
    data = drawn.store.read_range(sample.shard, *sample.parts["regions.npy"])
    grid = sample.frames, 4, 4
    return np.frombuffer(data[-int(np.prod(grid)) :], np.uint8).reshape(grid)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("flip", [False, True])
def test_pixels_and_regions_are_those_of_the_shard(make_config: MakeConfig, drawn: Drawn, flip: bool, decoder: str):
    cfg = make_config(data={"flip": flip, "decoder": decoder}, train={"micro_batch": 4})
    by_key = {sample.key: sample for sample in drawn.dataset.samples}
    mirrored = set()
    for batch in take(cfg, drawn, 3):
        assert batch.clips_BCTHW.shape == (4, 3, 16, 32, 32)
        assert batch.regions_BTHW.shape == (4, 8, 4, 4)
        for row, (key, start, flipped) in enumerate(zip(batch.keys, batch.starts, batch.flips, strict=True)):
            frames = [opencv_frame(drawn, by_key[key], start + 2 * index) for index in range(16)]
            pixels = np.stack(frames).transpose(3, 0, 1, 2).astype(np.float32) * np.float32(1 / 255)
            regions = stored_regions(drawn, by_key[key])[start : start + 32 : 4]
            if flipped:
                pixels, regions = pixels[..., ::-1], mirror_regions(regions)
            assert np.array_equal(batch.clips_BCTHW[row].numpy(), pixels)
            assert np.array_equal(batch.regions_BTHW[row].numpy(), regions)
            mirrored.add(flipped)
    assert mirrored == ({False, True} if flip else {False})


def test_mirroring_swaps_the_eyes_alone():
    grid = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    mirrored = mirror_regions(grid)
    for value, other in zip(grid[..., ::-1].ravel().tolist(), mirrored.ravel().tolist(), strict=True):
        bits = [(value >> bit) & 1 for bit in range(8)]
        bits[2], bits[3] = bits[3], bits[2]
        assert other == sum(bit << place for place, bit in enumerate(bits))
    assert np.array_equal(mirror_regions(mirrored), grid)


def test_resuming_equals_going_on(make_config: MakeConfig, drawn: Drawn):
    cfg = make_config(train={"micro_batch": 4})
    straight = take(cfg, drawn, 12)
    resumed = take(cfg, drawn, 4, consumed=32)
    assert all(same(one, other) for one, other in zip(straight[8:], resumed, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_world_size_changes_nothing(make_config: MakeConfig, drawn: Drawn, world: int):
    cfg = make_config(train={"micro_batch": 2})
    steps = 2
    alone = take(cfg, drawn, 4 * steps, consumed=616)
    ranks = [take(cfg, drawn, 4 * steps // world, rank=rank, world=world, consumed=616) for rank in range(world)]
    for step in range(steps):
        each = 4 // world
        parts = [batch for rank in ranks for batch in rank[step * each : (step + 1) * each]]
        assert same(joined(parts), joined(alone[4 * step : 4 * step + 4]))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (2, 3)])
def test_decoder_threads_and_prefetch_change_nothing(
    make_config: MakeConfig, drawn: Drawn, decoder: str, threads: int, prefetch: int
):
    one = take(make_config(), drawn, 3)
    other = take(make_config(data={"decoder": decoder, "threads": threads, "prefetch": prefetch}), drawn, 3)
    assert all(same(*pair) for pair in zip(one, other, strict=True))


def test_batches_outlive_the_loader(make_config: MakeConfig, drawn: Drawn):
    kept = take(make_config(data={"flip": True}), drawn, 12)
    again = take(make_config(data={"flip": True, "decoder": "opencv"}), drawn, 12)
    assert all(same(*pair) for pair in zip(kept, again, strict=True))


@pytest.mark.parametrize("keep_gb", [1.0, 0.0006])
def test_frames_that_are_kept_are_the_same(
    make_config: MakeConfig, drawn: Drawn, monkeypatch: pytest.MonkeyPatch, keep_gb: float
):
    plain = take(make_config(data={"flip": True, "decoder": "opencv"}), drawn, 12)
    decoded: list[int] = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *args: decoded.append(1) or decode(*args))
    kept = take(make_config(data={"flip": True, "decoder": "opencv", "keep_gb": keep_gb, "threads": 3}), drawn, 12)
    assert all(same(*pair) for pair in zip(plain, kept, strict=True))
    every = sum(sample.frames for sample in drawn.dataset.of_split("train"))
    # All of them once (a few twice, by two threads at once), or most of them at each use.
    assert every <= len(decoded) < 1.2 * every if keep_gb == 1 else len(decoded) > 1.2 * every


@pytest.mark.parametrize("decoder", DECODERS)
def test_fixed_clips_are_the_same_whole_pass_every_time(make_config: MakeConfig, drawn: Drawn, decoder: str):
    cfg = make_config(data={"decoder": decoder}, train={"micro_batch": 4})
    first, second = (list(fixed_clips(cfg, drawn.dataset, drawn.store, split="val", limit=99)) for _ in range(2))
    assert [len(batch.keys) for batch in first] == [4, 2]
    assert [len(batch.clips_BCTHW) for batch in first] == [4, 2]
    assert joined(first).keys == tuple(sample.key for sample in drawn.dataset.of_split("val"))
    assert same(joined(first), joined(second))
    assert list(fixed_clips(cfg, drawn.dataset, drawn.store, split="val", limit=0)) == []


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_loader_that_is_closed_ends(make_config: MakeConfig, drawn: Drawn, decoder: str):
    before = set(threading.enumerate())
    cfg = make_config(data={"decoder": decoder})
    loader = open_loader(cfg, drawn.dataset, drawn.store, split="train", rank=0, world=1)
    next(loader)
    loader.close()
    assert list(loader) == []
    assert set(threading.enumerate()) <= before


def test_a_machine_without_dali_reads_with_opencv(
    make_config: MakeConfig, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
):
    expected = take(make_config(), drawn, 1)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "train.data.dali")
    assert same(*take(make_config(data={"decoder": "opencv"}), drawn, 1), *expected)
    with pytest.raises(MarlinError, match=r"data\.decoder=opencv"):
        open_loader(make_config(), drawn.dataset, drawn.store, split="train", rank=0, world=1)


@pytest.mark.parametrize("decoder", DECODERS)
def test_only_the_frames_of_a_clip_are_touched(make_config: MakeConfig, tmp_path: Path, decoder: str):
    store = open_store(str(tmp_path))
    write_dataset(store, [DrawnTrack("a.mp4", train=(64,), val=())], label_maps=False)
    dataset = load_dataset(store)
    cfg = make_config(data={"decoder": decoder}, train={"micro_batch": 1})
    [whole] = fixed_clips(cfg, dataset, store, split="train", limit=1)
    shown = set(range(whole.starts[0], whole.starts[0] + 32, 2))
    for frame in set(range(64)) - shown:
        damage(tmp_path, dataset.samples[0], f"{frame:03d}.jpg", "zeros")
    [read] = fixed_clips(cfg, dataset, store, split="train", limit=1)
    assert same(read, whole)


def test_lengths(make_config: MakeConfig, drawn: Drawn):
    # Four streams of 3, 4, 5 and 7 samples: 12 clips an epoch, one and a half steps of 8.
    epochs = {"steps": None, "epochs": 3}
    assert steps_per_epoch(make_config(), drawn.dataset) == 2
    assert total_steps(make_config(train=epochs), drawn.dataset) == 5
    assert total_steps(make_config(train={"steps": 9}), drawn.dataset) == 9
    with pytest.raises(UsageError, match="no epochs"):
        total_steps(make_config(data={"source": "synthetic"}, train=epochs), None)


def test_synthetic_clips_are_the_same_at_every_world_size(make_config: MakeConfig):
    cfg = make_config(data={"source": "synthetic"}, train={"micro_batch": 2})

    def read(count: int, **place: int) -> list[Batch]:
        with open_loader(cfg, None, None, split="train", **place) as loader:
            return [next(loader) for _ in range(count)]

    alone = read(8, rank=0, world=1)
    assert alone[0].clips_BCTHW.shape == (2, 3, 16, 32, 32)
    assert alone[0].regions_BTHW.shape == (2, 8, 4, 4)
    assert (alone[0].clips_BCTHW.min(), alone[0].clips_BCTHW.max()) == (0, 1)
    ranks = read(2, rank=0, world=2, consumed=8) + read(2, rank=1, world=2, consumed=8)
    assert same(joined(ranks), joined(alone[4:]))


def damage(root: Path, sample: Sample, part: str, how: str) -> None:
    """Overwrite some of a part, or cut the shard inside it."""
    offset, length = sample.parts[part]
    path = root / sample.shard
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: offset + length // 2]
    elif how == "no-jpeg":
        data[offset : offset + 4] = b"GIF8"
    elif how == "tables":
        data[offset + 20 : offset + 40] = bytes(20)
    else:
        data[offset + 2 : offset + length - 2] = bytes(length - 4)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("part", "how", "message"),
    [
        ("031.jpg", "zeros", "000.tar is damaged at sample 000000-t00-000000: 031.jpg"),
        ("031.jpg", "tables", "000.tar is damaged at sample 000000-t00-000000: 031.jpg"),
        ("031.jpg", "no-jpeg", "000.tar is damaged at sample 000000-t00-000000: 031.jpg"),
        ("031.jpg", "cut", "000.tar has [0-9]+ bytes, the dataset lists"),
        ("regions.npy", "zeros", "000.tar is damaged at sample 000000-t00-000000: regions.npy"),
    ],
)
def test_damage_is_named(make_config: MakeConfig, tmp_path: Path, part: str, how: str, message: str):
    store = open_store(str(tmp_path))
    write_dataset(store, [DrawnTrack("a.mp4", train=(64,), val=())], label_maps=False)
    dataset = load_dataset(store)
    damage(tmp_path, dataset.samples[0], part, how)
    for decoder in DECODERS:
        # Stride 1 and odd frames: every clip of 32 shows frame 31.
        data = {"decoder": decoder, "frames": 32, "stride": 1}
        cfg = make_config(data=data, train={"global_batch": 2, "micro_batch": 2})
        with (
            open_loader(cfg, dataset, store, split="train", rank=0, world=1) as loader,
            pytest.raises(MarlinError, match=message.replace("000.tar", "000000-drawn-00.tar")),
        ):
            list(islice(loader, 20))


def test_what_cannot_be_read_is_refused_at_once(make_config: MakeConfig, drawn: Drawn):
    def opened(cfg: Config) -> None:
        open_loader(cfg, drawn.dataset, drawn.store, split="train", rank=0, world=1)

    with pytest.raises(UsageError, match="decode_device"):
        opened(make_config(data={"decode_device": "mixed"}))
    with pytest.raises(UsageError, match=r"data\.streams=16"):
        opened(make_config(data={"streams": 16}))


def test_a_frame_of_another_size_is_named(make_config: MakeConfig, drawn: Drawn):
    info = {**drawn.dataset.info, "size": 64}
    with (
        open_loader(
            make_config(), replace(drawn.dataset, info=info), drawn.store, split="train", rank=0, world=1
        ) as loader,
        pytest.raises(MarlinError, match="no JPEG of 64×64 pixels"),
    ):
        next(loader)


@settings(max_examples=300)
@given(st.binary(max_size=40), st.integers(0, 700), st.integers(0, 40))
def test_headers_of_any_bytes_end_before_their_scan(noise: bytes, place: int, cut: int):
    picture = cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    header = jpeg_header(picture)
    assert header is not None
    assert picture.startswith(header)
    assert jpeg_header(picture[: -1 - cut]) is None
    damaged = picture[:place] + noise + picture[place + len(noise) :]
    found = jpeg_header(damaged)
    assert found is None or damaged.startswith(found)

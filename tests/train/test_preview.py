"""`marlin dataset order`: what it prints is what ranks read, at every world size and after every resumption."""

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from drawn import Drawn, MakeConfig
from synthetic import DrawnTrack, write_dataset
from training import write_config

from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import open_store
from train.data.loader import open_loader
from train.data.preview import mask_digest, order_lines
from train.export import geometry_of
from train.step import Masker

STEPS, STOP = 200, 77
Line = dict[str, list[object]]
FIELDS = ("keys", "starts", "flips", "masks")


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Twelve sources of one or two samples."""
    store = open_store(str(tmp_path_factory.mktemp("wide")))
    tracks = [DrawnTrack(f"{n}.mp4", train=(40,) * (1 + n % 2), val=()) for n in range(12)]
    write_dataset(store, tracks, size=16, patch=4, label_maps=False)
    return Drawn(load_dataset(store), store)


@pytest.fixture
def wide_config(make_config: MakeConfig, wide: Drawn) -> Callable[..., Config]:
    """Configurations that read it in batches of 24."""

    def make(**data: object) -> Config:
        return make_config(
            data={"dataset": wide.store.url, "flip": True, **data}, train={"global_batch": 24, "micro_batch": 1}
        ).model_copy(
            update={
                "preprocess": make_config().preprocess.model_copy(update={"size": 16, "patch": 4}),
                "model": make_config().model.model_copy(update={"patch": 4}),
            }
        )

    return make


def printed(cfg: Config, world: int, *, nodes: int = 1, steps: int = STEPS) -> list[list[Line]]:
    """What is printed for each step of each rank."""
    ranks = [order_lines(cfg, nodes=nodes, world=world, rank=rank, steps=steps) for rank in range(world)]
    return [[json.loads(line) for line in lines] for lines in zip(*ranks, strict=True)]


def global_batches(steps: list[list[Line]]) -> list[Line]:
    return [{field: [value for rank in ranks for value in rank[field]] for field in FIELDS} for ranks in steps]


def read(cfg: Config, drawn: Drawn, world: int, steps: int, first: int = 0) -> list[Line]:
    """The global batches that the ranks of a training load and mask, from step `first` on."""
    masker = Masker(cfg, geometry_of(cfg), torch.device("cpu"))
    batches: list[Line] = [defaultdict(list) for _ in range(steps)]
    micros = cfg.train.global_batch // world // cfg.train.micro_batch
    for rank in range(world):
        consumed = first * cfg.train.global_batch
        with open_loader(
            cfg, drawn.dataset, drawn.store, split="train", rank=rank, world=world, consumed=consumed
        ) as loader:
            for line in batches:
                for batch in islice(loader, micros):
                    mask_BN = torch.zeros(len(batch.keys), geometry_of(cfg).tokens, dtype=torch.bool)
                    mask_BN.scatter_(1, masker(batch).visible_BV, True)
                    found = (batch.keys, batch.starts, batch.flips, [mask_digest(mask_N) for mask_N in mask_BN])
                    for field, values in zip(FIELDS, found, strict=True):
                        line[field].extend(values)
    return batches


@pytest.mark.slow
def test_ranks_read_what_is_printed_and_go_on_where_others_stopped(make_config: MakeConfig, drawn: Drawn):
    # One video is longer than the others: four streams of 3, 4, 5 and 7 samples, so tails are dropped.
    cfg = make_config(data={"dataset": drawn.store.url, "flip": True}, train={"micro_batch": 2})
    alone = read(cfg, drawn, 1, STEPS)
    assert alone == global_batches(printed(cfg, 1))
    for world in (2, 4):
        assert read(cfg, drawn, world, STEPS) == alone, world
    assert read(cfg, drawn, 4, STOP) + read(cfg, drawn, 2, STEPS - STOP, STOP) == alone


@pytest.mark.parametrize(
    ("streams", "worlds"), [(8, (2, 4, 8, 3, 12)), (6, (2, 3, 6, 4, 12))], ids=["8 streams", "6 streams"]
)
def test_global_batches_do_not_depend_on_the_world(
    wide_config: Callable[..., Config], streams: int, worlds: tuple[int, ...]
):
    cfg = wide_config(streams=streams)
    alone = global_batches(printed(cfg, 1))
    for world in worlds:
        assert global_batches(printed(cfg, world)) == alone, world
    assert len({mask for line in alone for mask in line["masks"]}) > 0.9 * STEPS * 24
    assert {flip for line in alone for flip in line["flips"]} == {False, True}


@pytest.mark.parametrize(("world", "nodes"), [(4, 2), (8, 4), (8, 8), (12, 4)])
def test_a_node_reads_shards_of_its_own(wide_config: Callable[..., Config], wide: Drawn, world: int, nodes: int):
    shards = {sample.key: sample.shard for sample in wide.dataset.samples}
    owned = defaultdict(set)
    for ranks in printed(wide_config(), world, nodes=nodes):
        for line in ranks:
            owned[line["node"]] |= {shards[key] for key in line["keys"]}
    assert sorted(owned) == list(range(nodes))
    assert sum(map(len, owned.values())) == len(wide.dataset.shards)


def test_only_region_grids_are_read(wide_config: Callable[..., Config], wide: Drawn, tmp_path: Path):
    expected = printed(wide_config(), 1, steps=3)
    store = open_store(str(tmp_path))
    for item in wide.store.list():
        data = bytearray(wide.store.read(item.key))
        for sample in wide.dataset.samples:
            for name, (offset, length) in sample.parts.items():
                if sample.shard == item.key and name != "regions.npy":
                    data[offset : offset + length] = bytes(length)
        store.write(item.key, bytes(data))
    cfg = wide_config(dataset=store.url)
    assert printed(cfg, 1, steps=3) == expected
    sample = wide.dataset.samples[0]
    path = tmp_path / sample.shard
    path.write_bytes(path.read_bytes()[: sample.parts["regions.npy"][0] + 8])
    with pytest.raises(MarlinError, match=r"000000-drawn-00\.tar"):
        printed(cfg, 1, steps=30)


def test_a_grid_of_other_frames_is_named(wide_config: Callable[..., Config], wide: Drawn, tmp_path: Path):
    store = open_store(str(tmp_path))
    for item in wide.store.list():
        store.write(item.key, wide.store.read(item.key).replace(b"(40, 4, 4)", b"(20, 8, 4)"))
    with pytest.raises(MarlinError, match=r"is damaged at sample .*: regions\.npy has 20 frames, not 40"):
        printed(wide_config(dataset=store.url), 1, steps=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--world", "2", "--rank", "2"), "--rank 2 is not one of the 2 ranks 0 to 1"),
        (("--world", "5"), "train.global_batch=24 does not divide into train.micro_batch=1 on 5 ranks: the nearest"),
        (("--world", "5"), "that fit are train.global_batch=20 or 25, or 4 ranks\n"),
        (("--world", "8", "train.micro_batch=2"), "train.global_batch=16 or 32, or train.micro_batch=1, or 6 ranks\n"),
        (("--world", "12", "--nodes", "3"), "3 nodes do not fit: each must own whole streams, of 8, and as many of"),
        (("--world", "12", "--nodes", "3"), "the nearest that fit are 2 or 4\n"),
        (("--world", "4", "--nodes", "8"), "8 nodes do not fit: each must own whole streams, of 8, and as many of"),
        (("--world", "4", "--nodes", "8"), "of the 4 ranks as every other: the nearest that fit are 4\n"),
        (("data.streams=16",), "data.streams=16 does not fit"),
        (("data.source=synthetic",), "data.source=synthetic reads no dataset"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_nearest_that_does(
    wide_config: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
):
    path = write_config(wide_config(), tmp_path / "wide.yaml")
    assert main(["dataset", "order", "-c", path, *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_the_command_prints_a_line_a_step(
    wide_config: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_config(wide_config(), tmp_path / "wide.yaml")
    assert main(["dataset", "order", "-c", path, "--nodes", "2", "--world", "4", "--rank", "3", "--steps", "5"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["node"] for line in lines] == [1] * 5
    assert all(len(line[field]) == 6 for line in lines for field in FIELDS)
    assert all(len(mask) == 16 for line in lines for mask in line["masks"])

"""Mixed datasets: exact proportions, epochs of their own, the same batches for every way of reading, honest records."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import Drawn, MakeConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import DrawnTrack, write_dataset

from pipeline.config.schema import Config, MixPart
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import open_store
from pipeline.storage.manifest import to_json
from train.data.batch import Batch
from train.data.datasets import mix_datasets, open_data
from train.data.loader import fixed_clips, open_loader, steps_per_epoch
from train.data.mix import BatchOrder, spread
from train.data.order import Order
from train.data.plan import TrainPlan
from train.data.preview import order_lines

STOP = 77
GOLDEN = [
    [(9, 0), (15, 0), (5, 0), (3, 0), (20, 0), (0, 0), (14, 0), (21, 0)],
    [(16, 1), (10, 2), (3, 2), (17, 1), (2, 2), (1, 2), (22, 1), (13, 2)],
]
mixes = st.lists(
    st.tuples(st.lists(st.integers(1, 6), min_size=4, max_size=8), st.integers(1, 9)), min_size=1, max_size=4
)
batches = st.sampled_from([4, 8, 12, 20])


def make_order(name: str, sizes: list[int], global_batch: int) -> Order:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    keys = [f"{name}-{item}" for item in range(len(groups))]
    return Order(keys, groups, seed=0, global_batch=global_batch, streams=4)


def laid_out(
    mix: list[tuple[list[int], int]], global_batch: int, steps: int
) -> tuple[list[Order], np.ndarray, np.ndarray]:
    """The datasets' orders; dataset, item and epoch (streams, positions, 3); the dataset of each item of each step."""
    orders = [make_order(str(place), sizes, global_batch) for place, (sizes, _) in enumerate(mix)]
    batch_order = BatchOrder(orders, [weight for _, weight in mix], global_batch)
    first = np.cumsum([0, *(order.items for order in orders)])
    read = np.array([batch_order.batch(step) for step in range(steps)])
    dataset = np.searchsorted(first, read[..., 0], side="right") - 1
    found = np.stack([dataset, read[..., 0] - first[dataset], read[..., 1]], axis=-1)
    by_stream = found.reshape(steps, 4, -1, 3).transpose(1, 0, 2, 3).reshape(4, -1, 3)
    return orders, by_stream, dataset


@settings(max_examples=50)
@given(mixes, batches)
def test_every_round_has_exactly_the_weights(mix: list[tuple[list[int], int]], global_batch: int):
    weights = [weight for _, weight in mix]
    _, by_stream, _ = laid_out(mix, global_batch, 3 * sum(weights))
    for stream in by_stream[..., 0]:
        windows = np.lib.stride_tricks.sliding_window_view(stream, sum(weights))
        counts = np.stack([(windows == dataset).sum(axis=1) for dataset in range(len(weights))], axis=1)
        assert (counts == weights).all()


@settings(max_examples=50)
@given(mixes, batches)
def test_a_global_batch_is_as_mixed_as_its_size_allows(mix: list[tuple[list[int], int]], global_batch: int):
    weights = np.array([weight for _, weight in mix])
    _, _, dataset = laid_out(mix, global_batch, 30)
    due = global_batch * weights / weights.sum()
    for step in dataset:
        counts = np.bincount(step, minlength=len(weights))
        assert (np.abs(counts - due) <= max(1, len(weights) - 1)).all()
        assert global_batch % weights.sum() or (counts == due).all()


@settings(max_examples=50)
@given(mixes, batches)
def test_each_dataset_goes_through_its_own_order_without_a_gap(mix: list[tuple[list[int], int]], global_batch: int):
    orders, by_stream, _ = laid_out(mix, global_batch, 40)
    for stream, read in enumerate(by_stream):
        for dataset, order in enumerate(orders):
            own = read[read[:, 0] == dataset][:, 1:]
            assert own.tolist() == [list(order.at(stream, position)) for position in range(len(own))]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_a_round_is_spread(weights: list[int]):
    places = spread(weights)
    assert Counter(places) == dict(enumerate(weights))
    laps = np.array(places * 2)
    for dataset, weight in enumerate(weights):
        gaps = np.diff(np.flatnonzero(laps == dataset))
        assert gaps.max(initial=0) <= len(places) / weight + len(weights)


def test_the_order_of_a_mix_never_changes():
    assert spread([3, 1]) == [0, 0, 1, 0]
    assert spread([2, 3, 1]) == [1, 0, 1, 2, 0, 1]
    order = BatchOrder([make_order("a", [3, 4, 5, 3], 8), make_order("b", [2, 2, 2, 2], 8)], [2, 1], 8)
    assert [order.batch(step) for step in (0, 5)] == GOLDEN


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A second dataset, some of whose samples have the keys of the first."""
    store = open_store(str(tmp_path_factory.mktemp("other")))
    tracks = [DrawnTrack(f"{name}.mp4", train=(40, 64), val=(40,)) for name in "xyzvw"]
    write_dataset(store, tracks, size=32, patch=8, label_maps=False)
    return Drawn(load_dataset(store), store)


@pytest.fixture
def mixed(make_config: MakeConfig, drawn: Drawn, other: Drawn) -> Callable[..., Config]:
    """Configurations that read both datasets, three clips of the first to one of the second."""

    def make(**train: object) -> Config:
        mix = [{"dataset": drawn.store.url, "weight": 3}, {"dataset": other.store.url, "weight": 1}]
        return make_config(data={"mix": mix, "flip": True}, train={"micro_batch": 2, **train})

    return make


def printed(cfg: Config, world: int, steps: int) -> list[dict[str, list[object]]]:
    """The global batches that the ranks of a world print together."""
    ranks = [order_lines(cfg, nodes=1, world=world, rank=rank, steps=steps) for rank in range(world)]
    lines = [[json.loads(line) for line in step] for step in zip(*ranks, strict=True)]
    fields = ("keys", "starts", "flips", "masks")
    return [{field: [value for line in step for value in line[field]] for field in fields} for step in lines]


def test_global_batches_do_not_depend_on_the_world(mixed: Callable[..., Config]):
    alone = printed(mixed(), 1, 200)
    assert [printed(mixed(), world, 200) == alone for world in (2, 4)] == [True, True]
    for line in alone:
        assert Counter(str(key).partition("/")[0] for key in line["keys"]) == {"0-drawn": 6, "1-drawn": 2}


def test_ranks_go_on_in_the_middle_with_the_bytes_of_the_right_dataset(
    mixed: Callable[..., Config], drawn: Drawn, other: Drawn
):
    cfg = mixed()
    expected = printed(cfg, 1, STOP + 3)[STOP:]
    dataset, store = open_data(cfg)
    read: list[list[Batch]] = [[], [], []]
    for rank in (0, 1):
        with open_loader(cfg, dataset, store, split="train", rank=rank, world=2, consumed=STOP * 8) as loader:
            for step in read:
                step.extend(islice(loader, 2))
    for step, line in zip(read, expected, strict=True):
        assert [key for batch in step for key in batch.keys] == line["keys"]
        assert [start for batch in step for start in batch.starts] == line["starts"]
        for batch in step:
            for row, key in enumerate(batch.keys):
                label, _, name = key.partition("/")
                pixels = first_frame({"0-drawn": drawn, "1-drawn": other}[label], name, batch.starts[row])
                pixels = pixels[:, ::-1] if batch.flips[row] else pixels
                assert np.array_equal(batch.clips_BCTHW[row, :, 0].mul(255).round().numpy(), pixels.transpose(2, 0, 1))


def first_frame(drawn: Drawn, key: str, start: int) -> np.ndarray:
    """RGB pixels of a frame of a sample, decoded by OpenCV."""
    [sample] = (sample for sample in drawn.dataset.samples if sample.key == key)
    data = drawn.store.read_range(sample.shard, *sample.parts[f"{start:03d}.jpg"])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_held_out_clips_are_those_of_all_datasets(mixed: Callable[..., Config], drawn: Drawn, other: Drawn):
    dataset, store = open_data(mixed())
    with fixed_clips(mixed(), dataset, store, split="val", limit=99) as clips:
        keys = [key for batch in clips for key in batch.keys]
    held_out = [("0-drawn", drawn), ("1-drawn", other)]
    assert keys == [f"{label}/{sample.key}" for label, one in held_out for sample in one.dataset.of_split("val")]


def test_a_mix_has_no_epochs(mixed: Callable[..., Config]):
    with pytest.raises(UsageError, match="no epochs of its own"):
        steps_per_epoch(mixed(), open_data(mixed())[0])


def test_the_identity_of_a_mix_is_that_of_its_datasets_and_weights(drawn: Drawn, other: Drawn):
    mixes = [
        mix_datasets(datasets, weights)
        for datasets in ([drawn.dataset, other.dataset], [other.dataset, drawn.dataset])
        for weights in ([1, 1], [1, 2])
    ]
    assert len({mix.identity for mix in mixes}) == len(mixes)
    assert mix_datasets([drawn.dataset, other.dataset], [1, 1]).identity == mixes[0].identity


def test_streams_fit_the_dataset_that_allows_fewest(mixed: Callable[..., Config], drawn: Drawn, tmp_path: Path):
    store = open_store(str(tmp_path))
    write_dataset(store, [DrawnTrack("p.mp4"), DrawnTrack("q.mp4")], size=32, patch=8, label_maps=False)
    few = {"dataset": store.url, "weight": 1}
    cfg = mixed()
    cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update={"mix": (*cfg.data.mix[:1], MixPart(**few))})})
    dataset, _ = open_data(cfg)
    assert TrainPlan(cfg, dataset, "train").order.streams == 2
    wide = cfg.model_copy(update={"data": cfg.data.model_copy(update={"streams": 4})})
    with pytest.raises(UsageError, match="2 separate sources allow at most 2"):
        TrainPlan(wide, dataset, "train")


def rewritten(drawn: Drawn, folder: Path, **info: object) -> str:
    """A copy of a dataset that says something else of itself."""
    store = open_store(str(folder))
    for item in drawn.store.list():
        store.write(item.key, drawn.store.read(item.key))
    store.write("dataset.json", to_json({**drawn.dataset.info, **info}) if info else drawn.store.read("dataset.json"))
    return store.url


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({}, r"data\.mix names one dataset twice, as .* and as .*copy: drop one"),
        ({"size": 64}, r"data\.mix: preprocess\.size is 64 in .*copy and 32 in .*: preprocess them alike"),
        ({"patch": 16}, r"data\.mix: preprocess\.patch is 16 in .*copy and 8 in"),
    ],
)
def test_datasets_that_do_not_go_together_are_refused(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path, info: dict[str, object], message: str
):
    copy = rewritten(drawn, tmp_path / "copy", **info)
    mix = [{"dataset": drawn.store.url, "weight": 1}, {"dataset": copy, "weight": 1}]
    with pytest.raises(UsageError, match=message) as caught:
        open_data(make_config(data={"mix": mix}))
    assert "\n" not in str(caught.value)


def test_a_dataset_that_is_not_finished_is_named(make_config: MakeConfig, drawn: Drawn, tmp_path: Path):
    mix = [{"dataset": drawn.store.url, "weight": 1}, {"dataset": str(tmp_path / "begun"), "weight": 1}]
    with pytest.raises(MarlinError, match="begun holds no finished dataset"):
        open_data(make_config(data={"mix": mix}))


def test_damage_names_the_dataset_s_place_and_shard(mixed: Callable[..., Config], other: Drawn, tmp_path: Path):
    copy = rewritten(other, tmp_path / "copy", name="second")
    for path in (tmp_path / "copy" / "shards").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    cfg = mixed()
    parts = (cfg.data.mix[0], MixPart(dataset=copy, weight=1))
    cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update={"mix": parts})})
    dataset, store = open_data(cfg)
    with (
        open_loader(cfg, dataset, store, split="train", rank=0, world=1) as loader,
        pytest.raises(MarlinError, match=r"data\.mix/1-second/shards/.*\.tar is damaged at sample 1-second/"),
    ):
        list(islice(loader, 8))

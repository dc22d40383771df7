"""The order of clips: a pure function of seed, epoch and dataset, the same for every way of reading it."""

import logging
from collections import Counter

import numpy as np
import pytest
from drawn import Drawn, MakeConfig
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MarlinError, UsageError
from train.data.mix import BatchOrder
from train.data.order import Order, check_nodes, deal, linked_groups, stream_count
from train.data.plan import Clip, TrainPlan, accumulation, centre_clips, first_step, rank_slice, valid_starts

worlds = pytest.mark.parametrize("world", [1, 2, 4])


def make_order(sizes: list[int], global_batch: int, seed: int = 0, streams: int | None = None) -> Order:
    """Groups of the given numbers of items."""
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    keys = [f"{group}-{item}" for item, group in enumerate(groups)]
    return Order(keys, groups, seed=seed, global_batch=global_batch, streams=streams)


def make_batches(sizes: list[int], global_batch: int) -> BatchOrder:
    """The global batches of one dataset of such groups."""
    return BatchOrder([make_order(sizes, global_batch)], [1], global_batch)


GOLDEN = [[(11, 0), (5, 0), (0, 0), (14, 0)], [(8, 0), (3, 0), (1, 0), (12, 0)], [(9, 2), (6, 2), (2, 2), (13, 2)]]
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(sizes, st.sampled_from([1, 2, 6, 8, 32]), st.integers(0, 2**31))
def test_batches_are_the_epochs_laid_end_to_end(group_sizes: list[int], global_batch: int, seed: int):
    order = make_order(group_sizes, global_batch, seed)
    share = global_batch // order.streams
    steps = 3 * order.length + 1
    laid_out = BatchOrder([order], [1], global_batch)
    batches = np.array([laid_out.batch(step) for step in range(steps)]).reshape(steps, order.streams, share, 2)
    for stream in range(order.streams):
        read = batches[:, stream].reshape(-1, 2)
        assert read[:, 1].tolist() == [position // order.length for position in range(len(read))]
        for epoch in range(read[-1, 1]):
            assert read[read[:, 1] == epoch, 0].tolist() == order.epoch(epoch)[stream].tolist()


@given(sizes, st.sampled_from([1, 4, 32]))
def test_epochs_repeat_nothing_and_leave_out_everything_equally_often(group_sizes: list[int], global_batch: int):
    order = make_order(group_sizes, global_batch)
    streams_of: dict[int, set[int]] = {}
    shown: Counter[int] = Counter()
    for epoch in range(20):
        items = order.epoch(epoch)
        assert len(set(items.ravel().tolist())) == items.size
        assert len(order.left_out(epoch)) == sum(group_sizes) - items.size
        shown.update(items.ravel().tolist())
        for stream in range(order.streams):
            for item in items[stream].tolist():
                streams_of.setdefault(item, set()).add(stream)
    groups = np.repeat(np.arange(len(group_sizes)), group_sizes)
    by_group: dict[int, set[int]] = {}
    for item, streams in streams_of.items():
        by_group.setdefault(int(groups[item]), set()).update(streams)
    assert all(len(streams) == 1 for streams in by_group.values())
    for stream in range(order.streams):
        counts = [shown[item] for item, streams in streams_of.items() if stream in streams]
        assert max(counts) - min(counts) <= 1


def test_each_epoch_tells_once_what_it_leaves_out(caplog: pytest.LogCaptureFixture):
    order = make_order([3, 4, 5, 7], 4)
    with caplog.at_level("DEBUG"):
        for position in range(9):  # three epochs of three items a stream
            order.at(0, position)
    told = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert len(told) == 3
    for epoch, line in enumerate(told):
        absent = order.left_out(epoch)
        assert line.startswith(
            f"epoch {epoch} leaves out 7 of 19, to keep streams equal: {', '.join(absent[:3])} and 4 more"
        )
        assert f"epoch {epoch} leaves out: {', '.join(absent)}" in caplog.text
    assert len({line.partition(":")[2] for line in told}) == 3  # not always the same ones
    caplog.clear()
    with caplog.at_level("INFO"):
        make_order([4, 4], 4).at(0, 0)
        make_order([4, 5], 2).at(0, 0)
    assert [record.getMessage().rpartition(":")[2].count(",") for record in caplog.records] == [0]


def test_epochs_and_seeds_have_orders_of_their_own():
    order = make_order([5] * 8, 8)
    assert not np.array_equal(order.epoch(0), order.epoch(1))
    assert not np.array_equal(order.epoch(0), make_order([5] * 8, 8, seed=1).epoch(0))


def test_an_epoch_can_be_read_again_after_later_ones():
    order = make_batches([3, 4, 5], 2)
    first = order.batch(0)
    order.batch(500)
    assert order.batch(0) == first


def test_order_never_changes():
    order = make_batches([3, 4, 5, 3], 4)
    assert [order.batch(step) for step in (0, 1, 7)] == GOLDEN


@given(st.lists(st.integers(1, 100), min_size=4, max_size=60))
def test_dealing_is_even_and_complete(weights: list[int]):
    dealt = deal(weights, 4)
    assert sorted(group for groups in dealt for group in groups) == list(range(len(weights)))
    loads = [sum(weights[group] for group in groups) for groups in dealt]
    assert max(loads) - min(loads) <= max(weights)
    assert min(loads) > 0


def test_units_and_sources_that_hang_together_are_one_group():
    pairs = [("u0", "a"), ("u1", "b"), ("u1", "c"), ("u2", "a"), ("u3", "c"), ("u4", "d")]
    assert linked_groups(pairs) == [0, 1, 1, 0, 1, 2]


@pytest.mark.parametrize(
    ("batch", "groups", "expected"), [(256, 1595, 32), (48, 1595, 16), (8, 5, 4), (7, 5, 1), (64, 1, 1)]
)
def test_default_streams(batch: int, groups: int, expected: int):
    assert stream_count(batch, groups, None) == expected


def test_streams_that_do_not_fit_are_refused_with_the_nearest():
    assert stream_count(12, 50, 3) == 3
    with pytest.raises(UsageError, match="nearest is 4"):
        stream_count(8, 5, 8)
    with pytest.raises(UsageError, match="nearest is 2"):
        stream_count(8, 5, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_nodes_that_do_not_own_whole_streams_are_refused_with_the_nearest(streams: int, nodes: int, world: int):
    fitting = [count for count in range(1, 41) if streams % count == 0 and world % count == 0]
    if nodes in fitting:
        check_nodes(streams, nodes, world)
        return
    nearest = [max(count for count in fitting if count < nodes), *[count for count in fitting if count > nodes][:1]]
    with pytest.raises(UsageError, match=f"the nearest that fit are {' or '.join(map(str, nearest))}$"):
        check_nodes(streams, nodes, world)


def test_batches_that_do_not_fit_are_refused_with_the_nearest(make_config: MakeConfig):
    assert accumulation(make_config(train={"global_batch": 64, "micro_batch": 8}), 2) == 4
    with pytest.raises(UsageError, match=r"global_batch=96 or 128, or train.micro_batch=10"):
        accumulation(make_config(train={"global_batch": 100, "micro_batch": 16}), 2)
    with pytest.raises(UsageError, match=r"or 2 ranks"):
        accumulation(make_config(train={"global_batch": 16, "micro_batch": 8}), 3)
    with pytest.raises(MarlinError, match="20 consumed"):
        first_step(make_config(), 20)


@worlds
def test_ranks_together_read_the_global_batch(make_config: MakeConfig, drawn: Drawn, world: int):
    cfg = make_config(train={"micro_batch": 2})
    plan = TrainPlan(cfg, drawn.dataset, "train")
    for step in (0, 1, 77):
        parts = [
            clip
            for rank in range(world)
            for micro in range(accumulation(cfg, world))
            for clip in plan.step(step, rank_slice(cfg, rank, world, micro))
        ]
        assert parts == plan.step(step)


@pytest.mark.parametrize("unit", ["sample", "source"])
def test_everything_is_seen_at_every_valid_start(make_config: MakeConfig, drawn: Drawn, unit: str):
    cfg = make_config(data={"epoch_unit": unit, "flip": True})
    plan = TrainPlan(cfg, drawn.dataset, "train")
    clips = [clip for step in range(600) for clip in plan.step(step)]
    samples = drawn.dataset.of_split("train")
    assert {clip.sample.key for clip in clips} == {sample.key for sample in samples}
    shortest = min(samples, key=lambda sample: sample.frames)
    assert {clip.start for clip in clips if clip.sample is shortest} == set(range(valid_starts(shortest, cfg.data)))
    assert all(clip.start >= 0 and clip.frames(cfg.data)[-1] < clip.sample.frames for clip in clips)
    assert 0.45 < np.mean([clip.flip for clip in clips]) < 0.55


def test_a_source_gives_one_clip_an_epoch_uniform_over_its_starts(make_config: MakeConfig, drawn: Drawn):
    cfg = make_config(data={"epoch_unit": "source"})
    plan = TrainPlan(cfg, drawn.dataset, "train")
    clips = [clip for step in range(1000) for clip in plan.step(step)]
    by_epoch = Counter((clip.epoch, clip.sample.source) for clip in clips)
    assert set(by_epoch.values()) == {1}
    own = [clip for clip in clips if clip.sample.source == "a.mp4"]
    starts = {s.key: valid_starts(s, cfg.data) for s in drawn.dataset.of_split("train") if s.source == "a.mp4"}
    for key, count in starts.items():
        expected = count / sum(starts.values())
        assert abs(np.mean([clip.sample.key == key for clip in own]) - expected) < 0.05


def test_short_samples_are_left_out_and_none_at_all_is_an_error(
    make_config: MakeConfig, drawn: Drawn, caplog: pytest.LogCaptureFixture
):
    plan = TrainPlan(make_config(data={"frames": 10, "stride": 3}), drawn.dataset, "train")
    assert {clip.sample.frames for step in range(50) for clip in plan.step(step)} == {32, 33, 40, 48, 64}
    cfg = make_config()
    long = cfg.model_copy(update={"data": cfg.data.model_copy(update={"frames": 32, "stride": 2})})
    with caplog.at_level(logging.INFO):
        TrainPlan(long, drawn.dataset, "train")
    assert f"5 samples of split train of {drawn.store.url} are shorter than a clip" in caplog.text
    longer = cfg.model_copy(update={"data": cfg.data.model_copy(update={"frames": 64, "stride": 2})})
    with pytest.raises(UsageError, match="no clips"):
        TrainPlan(longer, drawn.dataset, "train")


def test_centre_clips_are_spread_evenly(make_config: MakeConfig, drawn: Drawn):
    cfg = make_config()
    held_out = drawn.dataset.of_split("val")
    everything = centre_clips(cfg, drawn.dataset, "val", 100)
    assert [clip.sample for clip in everything] == list(held_out)
    assert [clip.start for clip in everything] == [(sample.frames - 31) // 2 for sample in held_out]
    some: list[Clip] = centre_clips(cfg, drawn.dataset, "val", 3)
    assert [clip.sample for clip in some] == [held_out[0], held_out[2], held_out[4]]
    assert centre_clips(cfg, drawn.dataset, "val", 0) == []

"""Remote shards read as local ones: copied ahead of use, bytes in the meantime, and what goes wrong on the way."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import Drawn, MakeConfig
from hypothesis import given
from hypothesis import strategies as st
from killed_runs import wait_until
from remote_shards import SECONDS, RemoteStore, copies, fill, open_train, read_until, remote, take

from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from train.data.access import RemoteShards
from train.data.cache.fetcher import ShardFetcher
from train.data.cache.folder import NodeCache
from train.data.cache.ranges import Span, joined
from train.data.loader import fixed_clips, open_loader
from train.data.lookahead import look_ahead
from train.data.plan import TrainPlan


def cached(make_config: MakeConfig, folder: Path, **data: Any) -> Config:
    return make_config(data={"cache_dir": str(folder), **data})


@pytest.mark.parametrize("cache_gb", [None, 0, "half"])
def test_a_remote_dataset_reads_as_a_local_one(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path, cache_gb: float | str | None
) -> None:
    sizes = [shard.size for shard in drawn.dataset.shards.values()]
    limit = (max(sizes) + sum(sizes) / 2) / 1e9 if cache_gb == "half" else cache_gb
    cfg, store = cached(make_config, tmp_path, cache_gb=limit), remote(drawn)
    expected = take(cfg, drawn, drawn.store, 6)
    for _ in range(2):
        assert torch.equal(take(cfg, drawn, store, 6), expected)
    assert (store.streamed == []) == (cache_gb == 0)
    if cache_gb == "half":
        assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) <= limit * 1e9


def test_shards_are_copied_once_and_then_read_from_the_copies(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path
) -> None:
    cfg, store = cached(make_config, tmp_path), remote(drawn)
    with open_train(cfg, drawn, store) as loader:
        read_until(loader, lambda: len(copies(tmp_path)) == len(drawn.dataset.shards))
    assert sorted(store.streamed) == sorted(drawn.dataset.shards)
    again = remote(drawn)
    take(cfg, drawn, again, 6)
    assert (again.streamed, again.ranges) == ([], [])


def test_ranks_share_what_they_copy(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    cfg = make_config(data={"cache_dir": str(tmp_path), "streams": 1}, train={"micro_batch": 2})
    stores = [remote(drawn) for _ in range(4)]
    loaders = [open_train(cfg, drawn, store, rank=rank, world=4) for rank, store in enumerate(stores)]
    try:
        for loader in loaders:
            read_until(loader, lambda: len(copies(tmp_path)) == len(drawn.dataset.shards))
    finally:
        for loader in loaders:
            loader.close()
    assert sorted(chain(*(store.streamed for store in stores))) == sorted(drawn.dataset.shards)


def test_without_copies_a_clip_is_one_or_two_requests(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    cfg, store = cached(make_config, tmp_path, cache_gb=0), remote(drawn)
    take(cfg, drawn, store, 20)
    groups = 20 + cfg.data.read_ahead + 2 * cfg.data.prefetch + 1
    assert len(store.ranges) <= 2 * 8 * groups


@dataclass(frozen=True)
class TwoPlaces(RemoteStore):
    """Half of a dataset here, half elsewhere."""

    def local_path(self, key: str) -> Path | None:
        return self.root / key if key.startswith("here/") else None


def test_what_lies_here_is_not_copied(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    names = {name: f"{'here' if place % 2 else 'there'}/{name}" for place, name in enumerate(drawn.dataset.shards)}
    dataset = replace(
        drawn.dataset,
        samples=tuple(replace(sample, shard=names[sample.shard]) for sample in drawn.dataset.samples),
        shards={names[name]: replace(entry, name=names[name]) for name, entry in drawn.dataset.shards.items()},
    )
    store = TwoPlaces(tmp_path / "store")
    for name, moved in names.items():
        store.write(moved, drawn.store.read(name))
    cfg = cached(make_config, tmp_path / "cache")
    with open_train(cfg, Drawn(dataset, store), store) as loader:
        clips = torch.cat([next(loader).clips_BCTHW for _ in range(6)])
        read_until(loader, lambda: len(copies(tmp_path / "cache")) == 3)
    assert torch.equal(clips, take(cfg, drawn, drawn.store, 6))
    assert sorted(store.streamed) == sorted(name for name in dataset.shards if name.startswith("there/"))
    assert all(span.shard.startswith("there/") for span in store.ranges)


def test_validation_makes_no_copies(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    cfg, store = cached(make_config, tmp_path), remote(drawn)
    clips = []
    for source in (store, drawn.store):
        with fixed_clips(cfg, drawn.dataset, source, split="val", limit=99) as loader:
            clips.append(torch.cat([batch.clips_BCTHW for batch in loader]))
    assert torch.equal(*clips)
    assert (store.streamed, copies(tmp_path)) == ([], set())


class Told:
    """Remembers what it is told, and nothing else."""

    def __init__(self) -> None:
        self.announced: list[set[str]] = []
        self.wanted: list[set[str]] = []

    def announce(self, spans: Any) -> None:
        self.announced.append({span.shard for span in spans})

    def want(self, shards: Any) -> None:
        self.wanted.append(set(shards))


@pytest.mark.parametrize(("near", "far"), [(1, 0), (2, 7), (3, 1)])
def test_what_follows_is_told_in_order_and_in_time(make_config: MakeConfig, drawn: Drawn, near: int, far: int) -> None:
    cfg = make_config()
    plan = TrainPlan(cfg, drawn.dataset, "train")
    groups = [plan.step(step) for step in range(20)]
    shards = [{clip.sample.shard for clip in group} for group in groups]
    told: Any = Told()
    for place, group in enumerate(look_ahead(groups, told, cfg.data, near=near, far=far)):
        assert group == groups[place]
        assert told.announced == shards[: place + near + 1]
        if far:
            assert told.wanted == shards[: max(near, min(near + 2 * place, far)) + place + 1]
        else:
            assert told.wanted == []
    assert told.announced == shards


SPANS = st.lists(st.builds(Span, st.sampled_from("ab"), st.integers(0, 200), st.integers(1, 30)), max_size=12)


@given(SPANS, st.integers(0, 40))
def test_joined_spans_hold_all_and_bridge_small_gaps_only(spans: list[Span], gap: int) -> None:
    found = list(joined(spans, gap))
    assert all(any(one.holds(span) for one in found) for span in spans)
    for before, after in pairwise(found):
        assert before.shard < after.shard or before.end + gap < after.offset
    covered = {(span.shard, byte) for span in spans for byte in range(span.offset, span.end)}
    for one in found:
        places = [byte for byte in range(one.offset, one.end) if (one.shard, byte) in covered]
        assert (places[0], places[-1]) == (one.offset, one.end - 1)
        assert all(later - earlier <= gap + 1 for earlier, later in pairwise(places))


def test_another_file_than_the_listed_one_ends_the_reading(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path
) -> None:
    store = RemoteStore(tmp_path / "store")
    for name in drawn.dataset.shards:
        data = bytearray(drawn.store.read(name))
        data[-1] ^= 1  # in the padding at the end of the tar: every sample still reads
        store.write(name, bytes(data))
    with (
        open_train(cached(make_config, tmp_path / "cache"), drawn, store) as loader,
        pytest.raises(MarlinError, match=r"store/shards/00000.-drawn-00\.tar is not the file that the dataset lists"),
    ):
        read_until(loader, lambda: False)
    assert copies(tmp_path / "cache") == set()


def test_a_wrong_shard_is_fetched_once(drawn: Drawn, tmp_path: Path) -> None:
    store, cache = RemoteStore(tmp_path / "store"), NodeCache(tmp_path / "cache", None)
    wrong, right = list(drawn.dataset.shards.values())[:2]
    store.write(wrong.name, b"x")
    store.write(right.name, drawn.store.read(right.name))
    fetcher = ShardFetcher(store, cache, 1, busy=lambda: False)
    for shard in (wrong, wrong, right):  # one thread: when the last is here, the others were tried
        fetcher.want(shard)
    assert wait_until(lambda: copies(tmp_path / "cache"), SECONDS)
    fetcher.check(right)
    with pytest.raises(MarlinError, match="is not the file that the dataset lists"):
        fetcher.check(wrong)
    fetcher.want(wrong)
    fetcher.close()
    cache.close()
    assert store.streamed == [wrong.name, right.name]


def test_what_is_needed_soon_goes_first(drawn: Drawn, tmp_path: Path) -> None:
    busy = threading.Event()
    busy.set()
    asked, cache = [], NodeCache(tmp_path, None)

    def is_busy() -> bool:
        asked.append(copies(tmp_path))
        return busy.is_set() and len(asked) < 5

    fetcher = ShardFetcher(remote(drawn), cache, 1, busy=is_busy)
    fetcher.want(next(iter(drawn.dataset.shards.values())))
    assert wait_until(lambda: copies(tmp_path), SECONDS)
    fetcher.close()
    cache.close()
    assert asked == [set()] * 5


def test_a_missing_object_is_named(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    with (
        open_train(cached(make_config, tmp_path / "cache"), drawn, RemoteStore(tmp_path / "store")) as loader,
        pytest.raises(MarlinError, match=r"store/shards/00000.-drawn-00\.tar: no such file"),
    ):
        next(loader)


def test_a_failing_background_is_told_once_and_reading_goes_on(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def fail(self: RemoteStore, key: str) -> Iterator[bytes]:
        raise MarlinError(f"{key}: the network is in pieces")

    monkeypatch.setattr(RemoteStore, "stream", fail)
    cfg = cached(make_config, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(take(cfg, drawn, remote(drawn), 6), take(cfg, drawn, drawn.store, 6))
    told = [record.getMessage() for record in caplog.records if "pieces" in record.getMessage()]
    assert len(told) == 1
    assert "shards are read from" in told[0]


def test_a_bound_below_the_node_s_share_is_told_with_what_is_needed(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path, caplog: Any
) -> None:
    largest = max(shard.size for shard in drawn.dataset.shards.values())
    cfg = cached(make_config, tmp_path, cache_gb=largest / 1e9)
    with caplog.at_level(logging.WARNING):
        take(cfg, drawn, remote(drawn), 1)
        with open_loader(cfg, drawn.dataset, remote(drawn), split="train", rank=0, world=1):
            pass
    told = [record.getMessage() for record in caplog.records if "this node reads 6 shards" in record.getMessage()]
    assert len(told) == 2  # once a loader
    assert "data.cache_gb=1" in told[0]


def test_a_node_s_share_is_that_of_its_ranks(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path, caplog: Any
) -> None:
    largest = max(shard.size for shard in drawn.dataset.shards.values())
    cfg = make_config(data={"cache_dir": str(tmp_path), "cache_gb": largest / 1e9}, train={"micro_batch": 2})
    shares = []
    for rank in range(4):
        caplog.clear()
        with (
            caplog.at_level(logging.WARNING),
            open_train(cfg, drawn, remote(drawn), rank=rank, world=4, nodes=2),
        ):
            shares.append([record.args[0] for record in caplog.records if "this node" in record.getMessage()])
    plan = TrainPlan(cfg, drawn.dataset, "train")
    counts = [len(plan.shards(part)) for part in (slice(0, 4), slice(4, 8))]
    assert sum(counts) == 6
    assert shares == [[f"{counts[0]} shards"], [], [f"{counts[1]} shards"], []]


def test_a_bound_that_holds_no_shard_is_refused(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.cache_gb=1e-05 holds none.* at least 0\.0\d, or 0 to read without"):
        open_train(cached(make_config, tmp_path, cache_gb=1e-5), drawn, remote(drawn))


def test_a_damaged_copy_is_replaced(make_config: MakeConfig, drawn: Drawn, tmp_path: Path, caplog: Any) -> None:
    cfg = cached(make_config, tmp_path)
    fill(cfg, drawn, tmp_path)
    for path in tmp_path.glob("*.tar"):
        path.write_bytes(b"\xff" * path.stat().st_size)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(take(cfg, drawn, remote(drawn), 12), take(cfg, drawn, drawn.store, 12))
    assert "was damaged and is removed" in caplog.text


def test_a_copy_that_another_reader_removed_is_read_anew(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    fill(cached(make_config, tmp_path), drawn, tmp_path)
    shard = next(iter(drawn.dataset.shards.values()))
    span, copy = Span(shard.name, 0, 512), tmp_path / f"{shard.sha256}.tar"
    readers = [
        RemoteShards(remote(drawn), drawn.dataset.shards, NodeCache(tmp_path, None), fetches=0, connections=1, window=1)
        for _ in range(2)
    ]
    whole = drawn.store.read_range(*span)
    copy.write_bytes(b"\xff" * shard.size)
    for reader in readers:  # both hold it open
        assert reader.read(span) != whole
    for reader in readers:
        assert reader.recover(shard.name)
        assert not copy.exists()
        assert reader.read(span) == whole
        reader.close()


def test_a_truncated_copy_is_replaced(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    cfg = cached(make_config, tmp_path)
    fill(cfg, drawn, tmp_path)
    for path in tmp_path.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(take(cfg, drawn, remote(drawn), 6), take(cfg, drawn, drawn.store, 6))


def test_damage_in_the_store_itself_is_named(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    store = RemoteStore(tmp_path / "store")
    for name, shard in drawn.dataset.shards.items():
        store.write(name, b"\xff" * shard.size)
    with (
        open_train(cached(make_config, tmp_path / "cache", cache_gb=0), drawn, store) as loader,
        pytest.raises(MarlinError, match="is damaged at sample"),
    ):
        next(loader)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("batches", "ranges", "shards"))]


def test_closing_ends_all_threads(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    with open_train(cached(make_config, tmp_path), drawn, remote(drawn)) as loader:
        next(loader)
        assert len(threads()) > 10
    assert threads() == []
    assert list(tmp_path.glob("*.uses")) == list(tmp_path.glob("*.part")) == []


def test_closing_does_not_wait_for_a_dead_network(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    gate = threading.Event()
    loader = open_train(cached(make_config, tmp_path), drawn, remote(drawn, gate=gate))
    reader = threading.Thread(target=lambda: list(loader), daemon=True)
    reader.start()
    while "batches" not in threads():
        time.sleep(0.01)
    loader.close()
    reader.join(SECONDS)
    assert not reader.is_alive()
    assert "batches" not in threads()
    gate.set()


def test_without_a_folder_copies_lie_in_the_user_s_cache(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARLIN_CACHE", str(tmp_path))
    with open_train(make_config(), drawn, remote(drawn)) as loader:
        read_until(loader, lambda: copies(tmp_path / "shards"))


def test_a_folder_that_cannot_be_made_is_named(make_config: MakeConfig, drawn: Drawn, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MarlinError, match="file/cache"):
        open_train(cached(make_config, tmp_path / "file" / "cache"), drawn, remote(drawn))


def test_errors_come_where_the_batch_would(make_config: MakeConfig, drawn: Drawn) -> None:
    info = {**drawn.dataset.info, "size": 64}
    other = Drawn(replace(drawn.dataset, info=info), drawn.store)
    with open_train(make_config(), other, drawn.store) as loader:
        for _ in range(2):
            with pytest.raises(MarlinError, match="no JPEG of 64×64 pixels"):
                next(loader)

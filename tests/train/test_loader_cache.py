"""Remote shards on this machine: fetched once, verified, never half there."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from drawn import Drawn, MakeConfig

from pipeline.errors import MarlinError
from pipeline.storage.local import LocalStore
from train.data.cache import NodeCache
from train.data.loader import open_loader


@dataclass(frozen=True)
class RemoteStore(LocalStore):
    """A store that has no files to read from, as S3; counts what is fetched."""

    fetched: list[str]
    delay: float = 0.0

    def local_path(self, key: str) -> None:
        return None

    def fetch(self, key: str, path: Path) -> None:
        self.fetched.append(key)
        time.sleep(self.delay)
        super().fetch(key, path)


def remote(drawn: Drawn, delay: float = 0.0) -> RemoteStore:
    return RemoteStore(Path(drawn.store.url), [], delay)


def test_a_remote_dataset_reads_as_a_local_one(make_config: MakeConfig, drawn: Drawn, tmp_path: Path):
    cfg = make_config(data={"cache_dir": str(tmp_path)})
    store = remote(drawn)
    batches = []
    for source in (drawn.store, store, store):
        with open_loader(cfg, drawn.dataset, source, split="train", rank=0, world=1) as loader:
            batches.append([next(loader).clips_BCTHW for _ in range(6)])
    assert torch.equal(torch.cat(batches[0]), torch.cat(batches[1]))
    assert torch.equal(torch.cat(batches[0]), torch.cat(batches[2]))
    assert sorted(store.fetched) == sorted(drawn.dataset.shards)


def test_concurrent_readers_fetch_a_shard_once(drawn: Drawn, tmp_path: Path):
    store = remote(drawn, delay=0.1)
    shard = next(iter(drawn.dataset.shards.values()))
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: NodeCache(tmp_path).path(store, shard), range(4)))
    assert store.fetched == [shard.name]
    assert {path.read_bytes() for path in paths} == {store.read(shard.name)}


def test_a_wrong_shard_is_refused_and_not_kept(drawn: Drawn, tmp_path: Path):
    shard = next(iter(drawn.dataset.shards.values()))
    store = RemoteStore(tmp_path / "store", [])
    store.write(shard.name, b"x" * shard.size)
    with pytest.raises(MarlinError, match=rf"{shard.name} is not the file that the dataset lists"):
        NodeCache(tmp_path / "cache").path(store, shard)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_what_a_killed_process_left_is_not_trusted(drawn: Drawn, tmp_path: Path):
    store, shard = remote(drawn), next(iter(drawn.dataset.shards.values()))
    (tmp_path / f"{shard.sha256}.part").write_bytes(b"half")
    (tmp_path / f"{shard.sha256}.tar").write_bytes(b"short")
    assert NodeCache(tmp_path).path(store, shard).read_bytes() == store.read(shard.name)


def test_a_folder_that_cannot_be_made_is_named(drawn: Drawn, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MarlinError, match="file/cache"):
        NodeCache(tmp_path / "file" / "cache").path(remote(drawn), next(iter(drawn.dataset.shards.values())))


def test_without_a_folder_it_lies_in_the_user_s_cache(
    make_config: MakeConfig, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MARLIN_CACHE", str(tmp_path))
    with open_loader(make_config(), drawn.dataset, remote(drawn), split="train", rank=0, world=1) as loader:
        next(loader)
    assert list((tmp_path / "shards").glob("*.tar"))

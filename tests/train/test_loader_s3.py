"""The loader on a real S3 server behind a proxy: who asks for what, how often, and through which failures."""

import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from drawn import Drawn, MakeConfig
from proxy import Fault, Proxy, Request, http_error, proxied
from remote_shards import copies, open_train, read_until, take
from s3_server import S3Server
from training import REPOSITORY, write_config

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.storage import Store, open_store

RANK = """
    import os, signal, sys
    from pathlib import Path
    from pipeline.config.load import load_config
    from pipeline.dataset import load_dataset
    from pipeline.layout import dataset_store
    from pipeline.storage.s3 import S3Store
    from train.data.loader import open_loader

    cfg, rank, world, shards = load_config(sys.argv[1]), *map(int, sys.argv[2:5])
    if "dies" in sys.argv:
        whole = S3Store.stream
        def stream(self, key):
            yield from whole(self, key)
            os.kill(os.getpid(), signal.SIGKILL)
        S3Store.stream = stream
    store = dataset_store(cfg)
    with open_loader(cfg, load_dataset(store), store, split="train", rank=rank, world=world) as loader:
        while len(list(Path(cfg.data.cache_dir).glob("*.tar"))) < shards:
            next(loader)
"""


class Remote:
    """The drawn dataset on the server, read through a proxy."""

    def __init__(self, store: Store, proxy: Proxy, drawn: Drawn) -> None:
        self.store, self.proxy, self.drawn = store, proxy, drawn

    def whole(self) -> Counter[str]:
        """How often each shard was asked for as a whole."""
        return Counter(request.path for request in self.proxy.requests if self.is_whole(request))

    @staticmethod
    def is_whole(request: Request) -> bool:
        return request.method == "GET" and request.path.endswith(".tar") and request.range is None

    def every_shard_once(self) -> dict[str, int]:
        place = "/" + self.store.url.removeprefix("s3://")
        return {f"{place}/{name}": 1 for name in self.drawn.dataset.shards}


@pytest.fixture
def remote(s3_server: S3Server, s3_url: str, drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with proxied(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_store(s3_url)
        for info in drawn.store.list():
            store.write(info.key, drawn.store.read(info.key))
        proxy.requests.clear()
        yield Remote(store, proxy, drawn)


def config(make_config: MakeConfig, remote: Remote, folder: Path, **train: int) -> Config:
    return make_config(data={"dataset": remote.store.url, "cache_dir": str(folder)}, train={"micro_batch": 4, **train})


def start(cfg: Config, path: Path, *arguments: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", textwrap.dedent(RANK), write_config(cfg, path), *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_ranks_and_jobs_of_a_node_fetch_a_shard_once(make_config: MakeConfig, remote: Remote, tmp_path: Path) -> None:
    folder, shards = tmp_path / "cache", len(remote.drawn.dataset.shards)
    processes = [
        start(config(make_config, remote, folder, seed=job), tmp_path / f"{job}{rank}.yaml", rank, 2, shards)
        for job in range(2)
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    assert remote.whole() == remote.every_shard_once()
    remote.proxy.requests.clear()
    third = config(make_config, remote, folder, seed=7)
    assert torch.equal(take(third, remote.drawn, remote.store, 8), take(third, remote.drawn, remote.drawn.store, 8))
    assert not any(request.path.endswith(".tar") for request in remote.proxy.requests)


@pytest.mark.slow
def test_a_rank_killed_while_it_fetches_costs_nothing_but_time(
    make_config: MakeConfig, remote: Remote, tmp_path: Path
) -> None:
    folder, shards = tmp_path / "cache", len(remote.drawn.dataset.shards)
    cfg = config(make_config, remote, folder)
    assert start(cfg, tmp_path / "c.yaml", 0, 1, shards, "dies").wait() == -signal.SIGKILL
    assert list(folder.glob("*.part")) != []
    whole_before = {path.name for path in folder.glob("*.tar")}
    remote.proxy.requests.clear()
    with open_train(cfg, remote.drawn, remote.store) as loader:
        read_until(loader, lambda: len(copies(folder)) == shards)
    assert len(remote.whole()) == shards - len(whole_before)
    assert set(remote.whole().values()) == {1}
    assert list(folder.glob("*.part")) == []


def test_trouble_on_the_way_is_not_seen_by_the_reader(make_config: MakeConfig, remote: Remote, tmp_path: Path) -> None:
    trouble = iter([Fault(http_error(503, "SlowDown")), Fault(cut_after=20_000), None, Fault(), None] * 12)
    remote.proxy.fault = lambda request: next(trouble, None) if request.path.endswith(".tar") else None
    cfg = config(make_config, remote, tmp_path)
    assert torch.equal(take(cfg, remote.drawn, remote.store, 8), take(cfg, remote.drawn, remote.drawn.store, 8))
    assert next(trouble, "over") != "over" or len(remote.proxy.requests) >= 60


@pytest.mark.parametrize("cache_gb", [None, 0])
def test_a_shard_that_is_gone_is_named(
    make_config: MakeConfig, remote: Remote, tmp_path: Path, cache_gb: float | None
) -> None:
    for name in remote.drawn.dataset.shards:
        remote.store.delete(name)
    data = {"dataset": remote.store.url, "cache_dir": str(tmp_path), "cache_gb": cache_gb}
    with (
        open_train(make_config(data=data), remote.drawn, remote.store) as loader,
        pytest.raises(MarlinError, match=rf"{remote.store.url}/shards/00000\d-drawn-00\.tar: no such object") as caught,
    ):
        next(loader)
    assert "\n" not in str(caught.value)


def test_a_shard_cut_short_is_named(make_config: MakeConfig, remote: Remote, tmp_path: Path) -> None:
    for name in remote.drawn.dataset.shards:
        remote.store.write(name, remote.store.read(name)[:5000])
    with (
        open_train(config(make_config, remote, tmp_path), remote.drawn, remote.store) as loader,
        pytest.raises(MarlinError, match=r"00000\d-drawn-00\.tar(: ends before byte| is not the file that)"),
    ):
        read_until(loader, lambda: False)
    assert copies(tmp_path) == set()

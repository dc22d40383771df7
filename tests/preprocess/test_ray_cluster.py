"""On a Ray cluster that exists already, of several nodes, one of which is lost."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from killed_runs import content, make_corpus, running, title, wait_until, write_config

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from preprocess.stage import run_preprocess

MakeConfig = Callable[..., Config]

pytestmark = pytest.mark.slow

CLIPS = 6
LONGEST = 200.0
FAST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 6}


@pytest.fixture
def token() -> None:
    """The secret that the nodes of a cluster share, as its administrator sets it."""
    # A process keeps the first one that Ray saw there, so one of an earlier test stays.
    os.environ.setdefault("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)


@contextlib.contextmanager
def cluster_of(count: int) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster of a head that does no work and so many nodes of one core."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": 128 << 20, "include_dashboard": False, "_system_config": FAST}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        added = [cluster.add_node(num_cpus=1, object_store_memory=128 << 20) for _ in range(count)]
        cluster.wait_for_nodes()
        yield cluster, added
    finally:
        cluster.shutdown()


@pytest.fixture
def nodes(token: None) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster of two nodes that work."""
    with cluster_of(2) as (cluster, added):
        yield cluster, added


def test_a_node_is_lost_and_the_run_completes_with_the_same_bytes(
    nodes, samples: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    cluster, [lost, kept] = nodes
    corpus = make_corpus(tmp_path / "raw", samples["WolfgangLanger_Pexels"], CLIPS, 40)
    whole = write_config(tmp_path / "whole.yaml", corpus, tmp_path / "whole", ray_address=cluster.address)
    with running(whole, tmp_path / "temp") as run:
        assert run.process.wait(LONGEST) == 0, run.process.stderr and run.process.stderr.read()
    config = write_config(tmp_path / "cut.yaml", corpus, tmp_path / "cut", ray_address=cluster.address)
    units = tmp_path / "cut/datasets/faces/units"
    with running(config, tmp_path / "temp") as run:
        assert wait_until(lambda: units.is_dir() and any(units.glob("*.json")), LONGEST)
        time.sleep(0.5)
        done_before = len(list(units.glob("*.json")))
        cluster.remove_node(lost, allow_graceful=False)
        assert run.process.wait(LONGEST) == 0, run.process.stderr and run.process.stderr.read()

    assert 1 <= done_before < CLIPS
    assert list(cluster.worker_nodes) == [kept]
    assert content(tmp_path / "cut/datasets/faces") == content(tmp_path / "whole/datasets/faces")
    manifests = [json.loads(path.read_bytes()) for path in units.glob("*.json")]
    assert [entry["source"] for unit in manifests for entry in unit["quarantined"]] == ["bad.mp4"]
    assert len(manifests) == CLIPS + 1


def test_a_node_with_a_network_actor_is_lost_and_the_run_completes_with_the_same_bytes(
    token: None, samples: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "raw", samples["WolfgangLanger_Pexels"], CLIPS, 40)
    units = tmp_path / "cut/datasets/faces/units"
    with cluster_of(3) as (cluster, added):
        whole = write_config(tmp_path / "whole.yaml", corpus, tmp_path / "whole", ray_address=cluster.address)
        with running(whole, tmp_path / "temp") as run:
            assert run.process.wait(LONGEST) == 0, run.process.stderr and run.process.stderr.read()
        apart = {"ray_address": cluster.address, "network_actors": 1, "workers": 1}
        config = write_config(tmp_path / "cut.yaml", corpus, tmp_path / "cut", **apart)
        with running(config, tmp_path / "temp") as run:
            assert wait_until(lambda: units.is_dir() and any(units.glob("*.json")), LONGEST)
            lost = {node.all_processes["raylet"][0].process.pid: node for node in added}[_raylet_of("NetworkActor")]
            cluster.remove_node(lost, allow_graceful=False)
            assert run.process.wait(LONGEST) == 0, run.process.stderr and run.process.stderr.read()

    assert content(tmp_path / "cut/datasets/faces") == content(tmp_path / "whole/datasets/faces")


def _raylet_of(actor: str) -> int:
    """Process that started the one actor of a class on the test's clusters."""
    [found] = [
        process for process in psutil.Process().children(recursive=True) if title(process).startswith(f"ray::{actor}")
    ]
    return found.ppid()


def test_a_cluster_that_is_not_there_is_named(
    token: None, face_clip: Path, models: dict[str, Path], make_config: MakeConfig
) -> None:
    cfg = make_config(face_clip.parent, ray_address="127.0.0.1:1")
    with pytest.raises(MarlinError, match=r"ray_address=127\.0\.0\.1:1: no Ray cluster"):
        run_preprocess(cfg, False)

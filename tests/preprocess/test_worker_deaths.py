"""What the driver does when workers die on a unit: with a Ray that is played, so that they die as wanted."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfMemoryError, RayTaskError

from pipeline.config.schema import Config, CorpusConfig, StorageConfig, TrainConfig
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from preprocess.cluster import worker
from preprocess.corpora import Source
from preprocess.dataset.plan import Piece, Root, Unit

UNIT = Unit("000000", Root("folder", "/", False, {}), tuple(Piece(Source(name, name, name), None) for name in "ab"))


class PlayedRay:
    """Stands for `ray`: `process` fails with an error of `make`, a source tried alone does no harm."""

    def __init__(self, make: Callable[[], Exception]) -> None:
        self._make, self._steps = make, 0

    def remote(self, **options: Any) -> Any:
        actor = SimpleNamespace(process=_method("process"), rehearse=_method("rehearse"))
        return lambda cls: SimpleNamespace(remote=lambda *arguments: actor)

    def wait(self, flying: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return flying[:1], flying[1:]

    def get(self, step: str) -> None:
        self._steps += 1
        assert self._steps < 50, "it goes on for ever"
        if step == "process":
            raise self._make()

    def kill(self, actor: Any) -> None:
        pass


def _method(name: str) -> Any:
    return SimpleNamespace(remote=lambda *arguments: name)


def _played(monkeypatch: pytest.MonkeyPatch, folder: Path, make: Callable[[], Exception]) -> list[dict[str, Any]]:
    monkeypatch.setattr(worker, "ray", PlayedRay(make))
    cfg = Config(
        corpus=CorpusConfig(path=str(folder)), storage=StorageConfig(root=str(folder)), train=TrainConfig(steps=1)
    )
    return list(worker.process_units(cfg, dataset_store(cfg), [UNIT], 1))


def _task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("process", "Traceback …\nlast line", cause)


@pytest.mark.parametrize(
    "make",
    [
        ActorDiedError,
        lambda: OutOfMemoryError("killed by the memory monitor"),
        lambda: ObjectLostError("00" * 28, "", ""),
        lambda: _task_error(MemoryError()),
    ],
)
def test_a_unit_that_dies_as_a_whole_alone_ends_in_quarantine(
    make: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [manifest] = _played(monkeypatch, tmp_path, make)
    assert [entry["reason"] for entry in manifest["quarantined"]] == ["worker-died", "worker-died"]


@pytest.mark.parametrize("cause", [MarlinError("the bucket is gone"), ValueError("a mistake")])
def test_what_no_source_did_ends_the_stage(cause: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MarlinError, match=r"the bucket is gone|unit 000000 failed: last line"):
        _played(monkeypatch, tmp_path, lambda: _task_error(cause))

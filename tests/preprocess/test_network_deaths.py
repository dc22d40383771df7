"""Frames that kill the network actor that looks at them, on a real Ray cluster: found, and nobody else is blamed."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_videos import write_video

from pipeline.config.schema import Config, PreprocessConfig
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from preprocess.cluster import job, remote
from preprocess.cluster.worker import cluster
from preprocess.decode.stall import limit_steps
from preprocess.decode.video import read_frames
from preprocess.stage import run_preprocess

MakeConfig = Callable[..., Config]

pytestmark = pytest.mark.slow


class FragileActor(remote.NetworkActor):
    """Network actor that dies of pictures that lack a colour, in another way for each."""

    def __init__(self, cfg: PreprocessConfig, device: Any) -> None:
        super().__init__(cfg, device)
        limit_steps(3)
        detect, parse = self._detector, self._parser

        def fragile_detect(rgb: np.ndarray) -> Any:
            if _lacks(rgb, 0):
                os.kill(os.getpid(), signal.SIGSEGV)
            while _lacks(rgb, 1):
                pass
            return detect(rgb)

        def fragile_parse(pictures: Any, points: Any) -> Any:
            if any(_lacks(picture, 2) for picture in pictures):
                raise MemoryError
            return parse(pictures, points)

        fragile_parse.name = parse.name  # type: ignore[attr-defined]
        self._detector, self._parser = fragile_detect, fragile_parse  # type: ignore[assignment]


def _lacks(rgb: np.ndarray, colour: int) -> bool:
    return bool(rgb[..., colour].mean() < 5 < rgb.mean())


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Network actors are of the fragile kind, and two attempts are all that a unit has."""
    from ray import cloudpickle

    # Ray's processes can't import a test.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(remote, "NetworkActor", FragileActor)
    monkeypatch.setattr(job, "RETRIES", 1)
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def _tinted(path: Path, clip: Path, colour: int) -> Path:
    """A clip without one of its colours."""
    frames = np.stack([frame.rgb for frame in read_frames(clip)])
    frames[..., colour] = 0
    return write_video(path, frames)


def _made(cfg: Config) -> tuple[dict[str, Any], dict[str, str]]:
    """Samples by source, and quarantined sources with their reasons."""
    store = dataset_store(cfg)
    manifests = [json.loads(store.read(item.key)) for item in store.list("units/")]
    samples: dict[str, Any] = {}
    for unit in manifests:
        for sample in unit["samples"]:
            samples.setdefault(sample["source"], []).append({**sample, "key": "", "shard": 0, "parts": {}})
    return samples, {entry["source"]: entry["reason"] for unit in manifests for entry in unit["quarantined"]}


def test_frames_that_kill_a_network_actor_are_found_among_innocent_ones(
    fragile: None, face_clip: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    good, corpus = tmp_path / "good", tmp_path / "raw"
    good.mkdir()
    for name in "ac":
        shutil.copy(face_clip, good / f"{name}.mp4")
    run_preprocess(whole := make_config(good, tmp_path / "whole", workers=1), progress=False)
    shutil.copytree(good, corpus)
    deadly = {_tinted(corpus / f"{name}.mp4", face_clip, colour).name for colour, name in enumerate("bdf")}

    cfg = make_config(corpus, workers=2, network_actors=1, unit_sources=2)
    run_preprocess(cfg, progress=False)

    samples, quarantined = _made(cfg)
    assert quarantined == dict.fromkeys(deadly, "worker-died")
    assert samples == _made(whole)[0]


class StillbornActor(FragileActor):
    """Network actor whose process dies before it has started."""

    def __init__(self, cfg: PreprocessConfig, device: Any) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


def test_an_actor_that_never_starts_ends_the_stage(
    fragile: None, face_clip: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "NetworkActor", StillbornActor)
    monkeypatch.setattr(remote, "RESTARTS", 1)
    cfg = make_config(face_clip.parent, network_actors=1)
    with pytest.raises(
        MarlinError, match=r"preprocessing workers can't start: a network actor can't start, or has died 1000 times "
    ):
        run_preprocess(cfg, progress=False)


def test_a_model_file_that_is_none_ends_the_stage_in_one_line(
    face_clip: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    (bad := tmp_path / "bad.pt").write_bytes(b"no network")
    cfg = make_config(face_clip.parent, network_actors=1, parser="farl", models={"farl": str(bad)})
    with pytest.raises(MarlinError) as caught:
        run_preprocess(cfg, progress=False)
    text = str(caught.value)
    assert text.startswith("preprocessing workers can't start: ")
    assert f"preprocess.models.farl: {bad} is not a TorchScript file" in text
    assert "\n" not in text
    assert "MarlinError" not in text


class TinyActor(FragileActor):
    """Network actor without networks."""

    def __init__(self, cfg: PreprocessConfig, device: Any) -> None:
        pass

    def wait(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


def test_only_the_call_that_an_actor_died_of_is_to_blame(fragile: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "NetworkActor", TinyActor)
    cfg = PreprocessConfig(workers=1, network_actors=1)
    over = threading.Event()

    def innocent() -> int:
        calls = 0
        while not over.is_set():
            assert line.ask("wait", 0.2) == "done"
            calls += 1
        return calls

    with cluster(cfg), ThreadPoolExecutor() as pool:
        [line] = remote.network_lines(cfg)
        others = [pool.submit(innocent) for _ in range(4)]
        try:
            for _ in range(3):
                with pytest.raises(remote.NetworkDied):
                    line.ask("die")
        finally:
            over.set()
        assert all(other.result() for other in others)
